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
  function automatic logic [9:0] next_of(input logic [9:0] sum, input logic [7:0] code, input logic take_away);
    // verilator lint_off UNUSEDSIGNAL
    logic [10:0] wide;
    // verilator lint_on UNUSEDSIGNAL
    wide = {sum, take_away} + {10'($signed(code)) ^ {10{take_away}}, take_away};
    next_of = wide[10:1];
  endfunction
  for (genvar i = 0; i < 16; ++i) begin : g_table
    logic [9:0] sum;
    always_ff @(posedge clk) begin
      if (clear) sum <= '0;
      else if (step) sum <= next_of(sum, codes[i], minus);
    end
    assign sums[i] = sum;
  end
endmodule
