// fifo_late: it is a queue. It has the level of the shadow queue at every cycle, and its first payload whenever the output
// is valid: unless the queue is empty, or has one payload that came in the cycle before.
module fifo_late_props #(
    parameter int WIDTH = 8,
    parameter int DEPTH = 16
) (
    input logic                     clk,
    input logic                     rst,
    input logic                     in_valid,
    input logic                     in_ready,
    input logic [        WIDTH-1:0] in_data,
    input logic                     out_valid,
    input logic                     out_ready,
    input logic [        WIDTH-1:0] out_data,
    input logic [  $clog2(DEPTH):0] level,
    // Registers of the module, for the invariants of the induction.
    input logic [$clog2(DEPTH)-1:0] write_at,
    input logic [$clog2(DEPTH)-1:0] read_at,
    input logic                     behind,
    input logic [        WIDTH-1:0] words    [DEPTH]
);

  localparam int BITS = $clog2(DEPTH);

  logic past, push;
  logic [BITS:0] count;
  logic [WIDTH-1:0] queue[DEPTH];
  shadow_queue #(
      .WIDTH(WIDTH),
      .DEPTH(DEPTH)
  ) shadow (
      .*
  );

  logic came;  // a payload, in the cycle before
  always_ff @(posedge clk) came <= push && !rst;

  always_comb begin
    if (past) begin
      assert (level == count);
      assert (out_valid || count == 0 || (count == 1 && came));
      // The rest waits in the RAM, from read_at on.
      assert (behind == (count != (BITS + 1)'(out_valid)));
      assert (BITS'(write_at - read_at) == BITS'(count - (BITS + 1)'(out_valid)));
      for (int at = 0; at < DEPTH; at++) begin
        if ((BITS + 1)'(at) < count && at >= int'(out_valid)) assert (words[BITS'(read_at+BITS'(at)-BITS'(out_valid))] == queue[at]);
      end
    end
  end

endmodule

bind fifo_late fifo_late_props #(
    .WIDTH(WIDTH),
    .DEPTH(DEPTH)
) props (
    .*,
    .words(store.words)
);
