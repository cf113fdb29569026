// Counts one digit of 4 bits of the rank codes of a lane: one counter a digit value from 1 to 15.
//
// Streams: up to 16 codes a cycle in, with `wide` 8 of 32 bits; a code counts when it equals `known` above the digit.
// `shift` moves the counters up by one, so that `top` shows value 15, then 14, ..., then 1; after 15 shifts all are 0,
// as a sweep wants them. `wide`, `digit` and `known` stand from 2 cycles before the first codes on. Latency: `done` follows the last codes when they are counted, 4 cycles later. Nothing stalls it.
//
// Equals the bins of layout::TopK for a digit of 4 bits. Value 0 has no counter: it is what is left. So codes 0,
// which are no entries, never count.
module digit_counter #(
    parameter int COUNT = 16
) (
    input  logic                                          clk,
    input  logic                                          rst,
    input  logic                                          valid,
    input  logic                                          last,
    input  logic [select_types::CODES-1:0][15:0]          codes,
    input  logic                                          wide,
    input  logic [2:0]                                    digit,
    input  logic [31:0]                                   known,
    input  logic                                          shift,
    output logic [COUNT-1:0]                              top,
    output logic                                          done
);

  import select_types::*;

  // Bits above the digit. A code of 32 bits lies in two places, its low half in the even one; what has no digit there
  // is compared whole or not at all.
  logic [15:0] above, above_even, above_odd, known_even, known_odd;
  logic whole, count_even, count_odd;
  always_comb begin
    unique case (digit[1:0])
      2'd3: above = 16'h0000;
      2'd2: above = 16'hF000;
      2'd1: above = 16'hFF00;
      default: above = 16'hFFF0;
    endcase
  end
  always_ff @(posedge clk) begin
    whole <= wide;
    above_even <= above;
    above_odd <= wide && !digit[2] ? 16'hFFFF : above;
    known_even <= known[15:0];
    known_odd <= wide ? known[31:16] : known[15:0];
    count_even <= !wide || !digit[2];
    count_odd <= !wide || digit[2];
  end

  logic [CODES-1:0] fits, equal;
  logic [CODES-1:0][3:0] value;
  logic [15:1][CODES-1:0] hot;
  logic [15:1][4:0] found;
  logic [15:1][COUNT-1:0] counts;
  logic [2:0] ends;

  function automatic logic [4:0] ones(input logic [CODES-1:0] bits);
    ones = 5'd0;
    for (int n = 0; n < CODES; ++n) ones = ones + 5'(bits[n]);
  endfunction

  always_comb begin
    for (int i = 0; i < CODES; i += 2) begin
      fits[i] = ((codes[i] ^ known_even) & above_even) == 16'h0000;
      fits[i+1] = ((codes[i+1] ^ known_odd) & above_odd) == 16'h0000;
    end
  end

  always_ff @(posedge clk) begin
    for (int i = 0; i < CODES; i += 2) begin
      equal[i] <= valid && count_even && fits[i] && (fits[i+1] || !whole);
      equal[i+1] <= valid && count_odd && fits[i+1];
    end
    for (int i = 0; i < CODES; ++i) value[i] <= codes[i][{digit[1:0], 2'b00}+:DIGIT];
    for (int b = 1; b < 16; ++b) begin
      for (int i = 0; i < CODES; ++i) hot[b][i] <= equal[i] && value[i] == 4'(b);
      found[b] <= ones(hot[b]);
    end
    // Codes and shifts never come at the same time.
    for (int b = 1; b < 16; ++b) begin
      if (rst) counts[b] <= '0;
      else if (shift) counts[b] <= b == 1 ? '0 : counts[b==1?1 : b-1];
      else counts[b] <= counts[b] + COUNT'(found[b]);
    end
    ends <= rst ? 3'd0 : {ends[1:0], valid && last};
    done <= ends[2] && !rst;
    if (rst) begin
      equal <= '0;
      hot <= '0;
      found <= '0;
    end
  end

  assign top = counts[15];

`ifndef SYNTHESIS
  assert property (@(posedge clk) disable iff (rst) shift |-> found == '0);
`endif

endmodule
