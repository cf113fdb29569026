// stream_fork: every output gets each beat of the source once, in order, and none else; a beat leaves the source two cycles
// after its last output has taken it, not before. The source holds its beat until then.
module stream_fork_props #(
    parameter int N = 2,
    parameter int WIDTH = 8
) (
    input logic             clk,
    input logic             rst,
    input logic             in_valid,
    input logic             in_ready,
    input logic [WIDTH-1:0] in_data,
    input logic [N-1:0]     out_valid,
    input logic [N-1:0]     out_ready,
    input logic [WIDTH-1:0] out_data,
    // A register of the module, for the invariants of the induction.
    input logic [N-1:0]     taken
);
  logic past = 1'b0;
  always_ff @(posedge clk) past <= 1'b1;
  always_comb if (!past) assume (rst);

  // Outputs that have the source's beat.
  logic [N-1:0] got;
  logic all_had, waits;
  logic [WIDTH-1:0] held;
  always_ff @(posedge clk) begin
    if (rst || (in_valid && in_ready)) got <= '0;
    else got <= got | (out_valid & out_ready);
    all_had <= past && !rst && !in_ready && got == '1;
    waits <= past && !rst && in_valid && !in_ready;
    held  <= in_data;
  end
  always_comb if (waits) assume (in_valid && in_data == held);

  always_comb begin
    if (past && !rst) begin
      assert (out_data == in_data);
      assert (out_valid == (in_valid ? ~got : '0));
      assert (in_ready == all_had);
      // Invariants.
      assert (taken == got);
      assert (got == '0 || waits);
    end
  end
  always_comb cover (past && !rst && in_valid && in_ready);
endmodule

bind stream_fork stream_fork_props #(
    .N(N),
    .WIDTH(WIDTH)
) props (
    .*
);
