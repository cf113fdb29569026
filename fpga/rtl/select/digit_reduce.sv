// Adds a figure of all lanes, and takes the largest of their largest scores.
//
// Streams: all lanes' answers to a read command at once, one a cycle; results $clog2(CHANNELS) cycles later.
// Nothing stalls it. Equals the sums over entries of layout::TopK's bins and `best` of layout::Ranks.
module digit_reduce #(
    parameter int CHANNELS = 2,
    parameter int SUM = 24
) (
    input  logic                         clk,
    input  logic                         rst,
    input  logic [CHANNELS-1:0]          value_valid,
    input  logic [CHANNELS-1:0][SUM-1:0] value,
    input  logic [CHANNELS-1:0]          best_valid,
    input  logic [CHANNELS-1:0][15:0]    best,
    output logic                         sum_valid,
    output logic [SUM-1:0]               sum,
    output logic                         largest_valid,
    output logic [15:0]                  largest
);

  reduce_tree #(
      .N(CHANNELS),
      .WIDTH(SUM),
      .LARGEST(1'b0)
  ) sums (
      .clk,
      .rst,
      .in_valid(value_valid[0]),
      .in_value(value),
      .out_valid(sum_valid),
      .out_value(sum)
  );

  reduce_tree #(
      .N(CHANNELS),
      .WIDTH(16),
      .LARGEST(1'b1)
  ) bests (
      .clk,
      .rst,
      .in_valid(best_valid[0]),
      .in_value(best),
      .out_valid(largest_valid),
      .out_value(largest)
  );

`ifndef SYNTHESIS
  // All lanes answer in the same cycle.
  assert property (@(posedge clk) disable iff (rst) (&value_valid) == (|value_valid));
  assert property (@(posedge clk) disable iff (rst) (&best_valid) == (|best_valid));
`endif

endmodule
