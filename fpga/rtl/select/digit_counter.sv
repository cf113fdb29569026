// Counts one digit of 4 bits of the rank codes of a lane: one counter a digit value from 1 to 15.
//
// Streams: up to N codes a cycle in, with `wide` half as many of 32 bits; a code counts when it equals `known` above the
// digit. `top` shows the counter of value 15; each `shift` moves it on to the next lower value, down to 1. The 15th one
// clears the counters, as a sweep wants them. `wide`, `digit` and `known` stand from a cycle before codes on. Shifts
// come when all codes are counted, and codes behind 15 shifts or none. Latency: codes are counted 5 cycles later; `top`
// follows a counter or a shift by a cycle. `done` follows the last codes by 4 cycles, so that the first shift comes 2
// cycles behind it or later. Nothing stalls it.
//
// Equals the bins of layout::TopK for a digit of 4 bits. Value 0 has no counter: it is what is left. So codes 0,
// which are no entries, never count.
module digit_counter #(
    parameter int COUNT = 16,
    parameter int N = select_types::CODES
) (
    input  logic                   clk,
    input  logic                   rst,
    input  logic                   valid,
    input  logic                   last,
    input  logic [N-1:0][15:0]     codes,
    input  logic                   wide,
    input  logic [2:0]             digit,
    input  logic [31:0]            known,
    input  logic                   shift,
    output logic [COUNT-1:0]       top,
    output logic                   done
);

  localparam int THREES = (N + 2) / 3;

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

  // Digits, and whether what is above them fits; then both halves of a digit, a bit a value. A code that does not count
  // has no high half. Registers move only for codes that are on their way, here and below: some_* tells which have any.
  logic [N-1:0] fits;
  logic [N-1:0][3:0] value, high, low;
  logic even_valid, odd_valid, some_high, some_few, some_found;
  always_ff @(posedge clk) begin
    even_valid <= valid && count_even && !rst;
    odd_valid <= valid && count_odd && !rst;
    if (valid) begin
      for (int i = 0; i < N; i += 2) begin
        fits[i] <= ((codes[i] ^ known_even) & above_even) == 16'h0000;
        fits[i+1] <= ((codes[i+1] ^ known_odd) & above_odd) == 16'h0000;
      end
      for (int i = 0; i < N; ++i) value[i] <= codes[i][{digit[1:0], 2'b00}+:4];
    end
    some_high <= (even_valid || odd_valid) && !rst;
    if (even_valid || odd_valid || some_high) begin
      for (int v = 0; v < 4; ++v) begin
        for (int i = 0; i < N; i += 2) begin
          high[i][v] <= even_valid && fits[i] && (fits[i+1] || !whole) && value[i][3:2] == 2'(v);
          high[i+1][v] <= odd_valid && fits[i+1] && value[i+1][3:2] == 2'(v);
        end
        for (int i = 0; i < N; ++i) low[i][v] <= value[i][1:0] == 2'(v);
      end
    end
    if (rst) high <= '0;
  end

  // Logic of LUTs alone: as sums they would be carry chains.
  function automatic logic [1:0] ones_of_three(input logic [2:0] bits);
    ones_of_three = {bits[2] && bits[1] || bits[2] && bits[0] || bits[1] && bits[0], ^bits};
  endfunction
  function automatic logic [2:0] ones_of_six(input logic [5:0] bits);
    logic [1:0] a, b;
    logic carry;
    a = ones_of_three(bits[2:0]);
    b = ones_of_three(bits[5:3]);
    carry = a[0] && b[0];
    ones_of_six = {a[1] && b[1] || a[1] && carry || b[1] && carry, a[1] ^ b[1] ^ carry, a[0] ^ b[0]};
  endfunction

  // Codes of a value in threes, then all of them, then so far.
  logic [15:1][5:0] few_low, few_high;  // of a three each
  logic [15:1][4:0] found;
  logic [15:1][COUNT-1:0] counts;
  logic [2:0] ends;
  logic [3:0] shifts;
  wire shifted = shift && shifts == 4'd14;  // through
  function automatic logic [THREES*3-1:0] of_value(input logic [N-1:0][3:0] highs, input logic [N-1:0][3:0] lows,
                                                   input logic [3:0] digit_value);
    of_value = '0;
    for (int i = 0; i < N; ++i) of_value[i] = highs[i][digit_value[3:2]] && lows[i][digit_value[1:0]];
  endfunction
  function automatic logic [4:0] sum_of(input logic [5:0] ones, input logic [5:0] twos);
    logic [2:0] once;
    once = ones_of_six(ones);
    sum_of = {4'(ones_of_six(twos)) + 4'(once[2:1]), once[0]};
  endfunction
  function automatic logic [11:0] few_of(input logic [THREES*3-1:0] bits);
    few_of = '0;
    for (int t = 0; t < THREES; ++t) {few_of[6+t], few_of[t]} = ones_of_three(bits[t*3+:3]);
  endfunction
  always_ff @(posedge clk) begin
    some_few <= some_high && !rst;
    some_found <= some_few && !rst;
    if (some_high || some_few) begin
      for (int b = 1; b < 16; ++b) {few_high[b], few_low[b]} <= few_of(of_value(high, low, 4'(b)));
    end
    if (some_few || some_found) for (int b = 1; b < 16; ++b) found[b] <= sum_of(few_low[b], few_high[b]);
    if (some_found) for (int b = 1; b < 16; ++b) counts[b] <= counts[b] + COUNT'(found[b]);
    ends <= {ends[1:0], valid && last};
    done <= ends[2] && !rst;
    if (rst || shifted) counts <= '0;
    if (rst) begin
      few_low <= '0;
      few_high <= '0;
      found <= '0;
      ends <= 3'd0;
    end
  end

  // The counters of odd values and of even ones are read apart, each a shift ahead of its turn. Their bits of each place
  // lie together, since a choice among bits is cheap.
  logic [2:0] odd_at;
  logic [COUNT-1:0] odd, even;
  logic changed;  // counters or places, a cycle ago
  function automatic logic [COUNT-1:0] count_at(input logic [15:1][COUNT-1:0] all, input logic is_odd,
                                                input logic [2:0] at);
    logic [7:0] bits;
    for (int k = 0; k < COUNT; ++k) begin
      for (int n = 0; n < 8; ++n) bits[n] = is_odd ? all[15-2*n][k] : n < 7 && all[n<7?14-2*n : 2][k];
      count_at[k] = bits[at];
    end
  endfunction
  always_ff @(posedge clk) begin
    changed <= some_found || shift || rst;
    if (shift) begin
      shifts <= shifted ? 4'd0 : shifts + 4'd1;
      odd_at <= odd_at + 3'(!shifts[0]);
    end
    if (changed) begin
      odd  <= count_at(counts, 1'b1, odd_at);
      even <= count_at(counts, 1'b0, shifts[3:1]);
    end
    if (rst) begin
      shifts <= 4'd0;
      odd_at <= 3'd0;
    end
  end
  assign top = shifts[0] ? even : odd;

`ifndef SYNTHESIS
  assert property (@(posedge clk) disable iff (rst) shift |-> {high, few_low, few_high, found} == '0);
  assert property (@(posedge clk) disable iff (rst) shift && shifts == 4'd0 |-> !done && top == counts[15]);
  assert property (@(posedge clk) disable iff (rst) valid |-> shifts == 4'd0);
`endif

  if (N % 2 != 0 || N > 16) $error("codes come in pairs, up to 16");

endmodule
