// A checker of a stream, empty for synthesis: a payload that is valid and not taken stays valid and unchanged.
// Checks begin with the first reset.
module stream_if #(
    parameter int WIDTH = 1,
    parameter bit NEVER_STALLS = 1'b0  // a payload comes only while `ready` is high
) (
    input logic             clk,
    input logic             rst,
    input logic             valid,
    input logic             ready,
    input logic [WIDTH-1:0] data
);
`ifdef FORMAL
  `define MNEMO_STREAM_CHECKS
`endif
`ifndef SYNTHESIS
  `define MNEMO_STREAM_CHECKS
`endif

`ifdef MNEMO_STREAM_CHECKS
  logic armed = 1'b0;
  logic stalled = 1'b0;
  logic [WIDTH-1:0] held;

  always_ff @(posedge clk) begin
    if (rst) armed <= 1'b1;
    stalled <= armed && !rst && valid && !ready;
    if (valid && !ready) held <= data;
    if (NEVER_STALLS && armed && !rst) begin
      assert (!valid || ready)
      else $error("%m: a payload comes without room");
    end
    if (!rst && stalled) begin
      assert (valid)
      else $error("%m: a payload is withdrawn before it is taken");
      assert (!valid || data == held)
      else $error("%m: a payload changes before it is taken");
    end
  end
`endif
  `undef MNEMO_STREAM_CHECKS
endmodule
