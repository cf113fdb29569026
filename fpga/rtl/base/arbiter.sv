// Round robin among N. `grant` has the bit of one that wants, without a register; `any` says that one does.
// With `take`, the granted one becomes the last in turn: nobody waits for more than N - 1 takes of others.
// While nothing is taken, a new want may change the grant: who needs it held registers it.
module arbiter #(
    parameter int N = 4
) (
    input  logic         clk,
    input  logic         rst,
    input  logic [N-1:0] want,
    input  logic         take,
    output logic [N-1:0] grant,
    output logic         any
);
  logic [N-1:0] later;  // those after the last granted one: they come first
  logic [N-1:0] first, below;  // below: one of a lower number is granted
  logic [N-1:0] below_first, below_want;
  logic wrap;

  // Both orders are found side by side.
  assign any   = want != '0;
  assign first = want & later;
  assign wrap  = first == '0;
  assign below = wrap ? below_want : below_first;
  assign grant = wrap ? want & ~below_want : first & ~below_first;

  always_comb begin
    for (int n = 0; n < N; n++) begin
      below_first[n] = (first & ((N'(1) << n) - N'(1))) != '0;
      below_want[n]  = (want & ((N'(1) << n) - N'(1))) != '0;
    end
  end

  always_ff @(posedge clk) begin
    if (rst) later <= '1;
    else if (take && any) later <= below;
  end
endmodule
