// Merges the pages with hits of two sets of lanes into page order: of both heads the lower row goes first, of equal
// rows that of the lower lanes, `a`.
//
// Streams: two in, one out, a page a cycle, latency 1. A page waits until the other side has one too or has
// said that it has no more; when both have, that goes out once. The output's skid buffer stalls it.
module merge_pair (
    input  logic                     clk,
    input  logic                     rst,
    input  logic                     a_valid,
    output logic                     a_ready,
    input  select_types::hit_page_t a,
    input  logic                     b_valid,
    output logic                     b_ready,
    input  select_types::hit_page_t b,
    output logic                     out_valid,
    input  logic                     out_ready,
    output select_types::hit_page_t out
);

  import select_types::*;

  logic room;
  wire b_first = {b.finish, b.row} < {a.finish, a.row};
  wire both_finish = a.finish && b.finish;
  wire pass_one = a_valid && b_valid && room;
  assign a_ready = pass_one && (!b_first || both_finish);
  assign b_ready = pass_one && (b_first || both_finish);

  // Rows of two finished sides are 0 or left over: the sides finish as one whatever their rows.
  skid #(
      .WIDTH($bits(hit_page_t))
  ) buffer (
      .clk,
      .rst,
      .in_valid(a_valid && b_valid),
      .in_ready(room),
      .in_data(b_first ? b : a),
      .out_valid,
      .out_ready,
      .out_data(out)
  );

endmodule
