// fifo: it is a queue. It has the level and the first payload of the shadow queue at every cycle.
module fifo_props #(
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

  always_comb begin
    if (past) begin
      assert (level == count);
      assert (out_valid == (count != 0));
      // The rest waits in the RAM, from read_at on.
      assert (BITS'(write_at - read_at) == (count == 0 ? BITS'(0) : BITS'(count - 1'b1)));
      for (int at = 0; at + 1 < DEPTH; at++) begin
        if ((BITS + 1)'(at + 1) < count) assert (words[BITS'(read_at+BITS'(at))] == queue[at+1]);
      end
    end
  end

endmodule

bind fifo fifo_props #(
    .WIDTH(WIDTH),
    .DEPTH(DEPTH)
) props (
    .*,
    .words(store.words)
);
