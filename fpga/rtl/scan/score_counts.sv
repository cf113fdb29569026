// Which entries of a step count: those of the range, or of a listed page's mask.
//
// No stream: a step a cycle, nothing stalls. Entry e of the step is entry `first` + e of the page; `first` is a
// multiple of E. Only entry 0 of a page's own row counts; a fold's page is entry 0, in whichever step it is complete.
// Latency: 4 cycles, of which two are spare: the caller's tag takes as many.
//
// Equals the range of layout::Scores, by entry.
module score_counts
  import scan_types::*;
#(
    parameter int E = 4
) (
    input  logic         clk,
    input  logic         none,
    // verilator lint_off UNUSEDSIGNAL
    input  score_shape_t shape,
    // verilator lint_on UNUSEDSIGNAL
    input  logic [  5:0] first,
    input  logic [  5:0] low,
    input  logic [  5:0] high,
    input  logic [ 63:0] mask,
    output logic [E-1:0] counts
);
  logic [E-1:0] in_mask, in_range, in_mask1, in_range1, counts1, counts2;
  logic none1, listed1, fold1, page_row1, page1;
  always_comb begin
    for (int e = 0; e < E; ++e) begin
      automatic logic [5:0] which = first | 6'(e);
      in_mask[e]  = mask[which];
      in_range[e] = which >= low && which <= high;
    end
    counts1 = listed1 ? in_mask1 : in_range1;
    if (fold1) counts1[0] = page1;
    if (fold1 || page_row1) counts1 &= E'(1);
    if (none1) counts1 = '0;
  end

  always_ff @(posedge clk) begin
    in_mask1 <= in_mask;
    in_range1 <= in_range;
    page1 <= shape.listed ? mask[0] : low == '0;
    {none1, listed1, fold1, page_row1} <= {none, shape.listed, shape.fold, shape.page_row};
    counts2 <= counts1;
  end
  delay #(
      .WIDTH(E),
      .CYCLES(2)
  ) delay_counts (
      .clk,
      .in_data(counts2),
      .out_data(counts)
  );
endmodule
