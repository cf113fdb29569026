// fifo_late: it is a queue. A shadow queue, filled and emptied by the handshakes alone, has the same level and the same
// first payload at every cycle with a valid output, so nothing is lost, doubled or reordered; there is room but for DEPTH.
// The output is valid unless the queue is empty, or has one payload that came in the cycle before.
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

  logic past = 1'b0;
  always_ff @(posedge clk) past <= 1'b1;
  always_comb if (!past) assume (rst);

  // The producer keeps a payload that is not taken.
  logic waits;
  logic [WIDTH-1:0] waiting;
  always_ff @(posedge clk) begin
    waits   <= past && !rst && in_valid && !in_ready;
    waiting <= in_data;
  end
  always_comb if (waits) assume (in_valid && in_data == waiting);

  logic [WIDTH-1:0] queue[DEPTH];
  logic [BITS:0] count;
  logic push, pop;
  assign push = in_valid && in_ready;
  assign pop  = out_valid && out_ready;
  always_ff @(posedge clk) begin
    if (rst) begin
      count <= '0;
    end else begin
      if (push && !pop) count <= count + 1'b1;
      if (!push && pop) count <= count - 1'b1;
      for (int at = 0; at < DEPTH; at++) begin
        if (pop && at + 1 < DEPTH) queue[at] <= queue[at+1];
        if (push && (BITS + 1)'(at) == count - (BITS + 1)'(pop)) queue[at] <= in_data;
      end
    end
  end

  logic came;  // a payload, in the cycle before
  always_ff @(posedge clk) came <= push && !rst;

  logic started = 1'b0;  // a cycle after the first reset
  always_ff @(posedge clk) started <= past && !rst;

  always_comb begin
    if (past) begin
      assert (level == count);
      assert (count <= (BITS + 1)'(DEPTH));
      assert (!out_valid || count != 0);
      assert (out_valid || count == 0 || (count == 1 && came));
      assert (!in_ready || count != (BITS + 1)'(DEPTH));
      if (started) assert (in_ready == (count != (BITS + 1)'(DEPTH)));
      if (out_valid) assert (out_data == queue[0]);
      // The rest waits in the RAM, from read_at on.
      assert (behind == (count != (BITS + 1)'(out_valid)));
      assert (BITS'(write_at - read_at) == BITS'(count - (BITS + 1)'(out_valid)));
      for (int at = 0; at < DEPTH; at++) begin
        if ((BITS + 1)'(at) < count && at >= int'(out_valid)) assert (words[BITS'(read_at+BITS'(at)-BITS'(out_valid))] == queue[at]);
      end
    end
  end

  always_comb cover (past && count == (BITS + 1)'(DEPTH));

endmodule

bind fifo_late fifo_late_props #(
    .WIDTH(WIDTH),
    .DEPTH(DEPTH)
) props (
    .*,
    .words(store.words)
);
