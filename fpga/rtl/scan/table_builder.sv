// Sums of all subsets of each 4 codes of a segment of one query: table i has sum over the set bits b of its
// address of code 4 i + b. The addresses come in Gray order, so each sum takes one addition.
//
// No stream: `step` adds (or with `minus` takes away) code 4 i + b of all 16 tables, which `codes` holds;
// `clear` goes first. Latency: sums are valid in the next cycle. Nothing stalls.
module table_builder (
    input  logic              clk,
    input  logic              clear,
    input  logic              step,
    input  logic              minus,
    input  logic [15:0][ 7:0] codes,
    output logic [15:0][ 9:0] sums
);
  // The lowest bit carries in: code ^ -1 + 1 = -code.
  // verilator lint_off UNUSEDSIGNAL
  logic [15:0][10:0] next;
  // verilator lint_on UNUSEDSIGNAL
  always_comb begin
    for (int i = 0; i < 16; ++i) next[i] = {sums[i], minus} + {10'($signed(codes[i])) ^ {10{minus}}, minus};
  end
  always_ff @(posedge clk) begin
    for (int i = 0; i < 16; ++i) begin
      if (clear) sums[i] <= '0;
      else if (step) sums[i] <= next[i][10:1];
    end
  end
endmodule
