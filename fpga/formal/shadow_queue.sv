// A queue of DEPTH payloads, filled and emptied by the handshakes of a module that claims to be one: properties compare
// both. It has what all of these claim and assume; its outputs are for the rest.
module shadow_queue #(
    parameter int WIDTH = 8,
    parameter int DEPTH = 16
) (
    input  logic                   clk,
    input  logic                   rst,
    input  logic                   in_valid,
    input  logic                   in_ready,
    input  logic [      WIDTH-1:0] in_data,
    input  logic                   out_valid,
    input  logic                   out_ready,
    input  logic [      WIDTH-1:0] out_data,
    output logic                   past,       // low in the first cycle alone
    output logic                   push,
    output logic [$clog2(DEPTH):0] count,
    output logic [      WIDTH-1:0] queue[DEPTH]
);
  localparam int BITS = $clog2(DEPTH);
  localparam logic [BITS:0] FULL = (BITS + 1)'(DEPTH);

  initial past = 1'b0;
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

  logic pop;
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

  logic started = 1'b0;  // no reset in the cycle before
  always_ff @(posedge clk) started <= past && !rst;

  // Nothing is lost, doubled or reordered, and there is room but for DEPTH.
  always_comb begin
    if (past) begin
      assert (count <= FULL);
      assert (!out_valid || count != 0);
      assert (in_ready == (started && count != FULL));
      if (out_valid) assert (out_data == queue[0]);
    end
  end

  always_comb cover (past && count == FULL);

endmodule
