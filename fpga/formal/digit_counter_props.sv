// digit_counter: when all codes are counted, the counter of each value is the number of codes with that digit among
// those that equal `known` above it, since the counters were cleared; so they are a cycle behind `done`. `top` shows
// them one by one from value 15 down; the 15th shift clears them. Codes have 16 bits, with `wide` 32. The environment
// changes what is looked for only while no codes come, and shifts when all are counted.
module digit_counter_props #(
    parameter int COUNT = 5,
    parameter int N = 4
) (
    input logic                   clk,
    input logic                   rst,
    input logic                   valid,
    input logic                   last,
    input logic [N-1:0][15:0]     codes,
    input logic                   wide,
    input logic [2:0]             digit,
    input logic [31:0]            known,
    input logic                   shift,
    input logic [COUNT-1:0]       top,
    input logic                   done,
    // Registers of the module, for the invariants of the induction.
    input logic                   whole,
    input logic                   even_valid,
    input logic                   odd_valid,
    input logic                   some_high,
    input logic                   some_few,
    input logic                   some_found,
    input logic [N-1:0]           fits,
    input logic [N-1:0][3:0]      value,
    input logic [N-1:0][3:0]      high,
    input logic [N-1:0][3:0]      low,
    input logic [15:1][5:0]       few_low,
    input logic [15:1][5:0]       few_high,
    input logic [15:1][4:0]       found,
    input logic [15:1][COUNT-1:0] counts,
    input logic [2:0]             ends,
    input logic [3:0]             shifts,
    input logic [2:0]             odd_at,
    input logic                   changed,
    input logic [COUNT-1:0]       odd,
    input logic [COUNT-1:0]       even
);
  logic past = 1'b0;
  always_ff @(posedge clk) past <= 1'b1;
  always_comb if (!past) assume (rst);

  // Cycles since codes came, and whether they were the last ones.
  logic [5:1] came;
  logic [4:1] ended;
  logic [3:0] moved;  // shifts since the counters were cleared
  logic cleared;
  always_ff @(posedge clk) begin
    came <= rst ? 5'd0 : {came[4:1], valid};
    ended <= rst ? 4'd0 : {ended[3:1], valid && last};
    cleared <= rst || (shift && moved == 4'd14);
    if (rst || (shift && moved == 4'd14)) moved <= 4'd0;
    else if (shift) moved <= moved + 4'd1;
  end
  logic wide_q;
  logic [2:0] digit_q;
  logic [31:0] known_q;
  always_ff @(posedge clk) {wide_q, digit_q, known_q} <= {wide, digit, known};
  always_comb begin
    if (!wide) assume (!digit[2]);
    if (valid) assume (past && wide == wide_q && digit == digit_q && known == known_q && moved == 4'd0);
    if (shift) assume (!valid && came[4:1] == 4'd0);
  end

  // The definition: codes that count, and their digits. A code of 32 bits stands where its digit lies.
  logic [N-1:0] is, is1, is2;
  logic [N-1:0][3:0] of, of1, of2;
  logic [5:0] above;
  logic [31:0] code;
  always_comb begin
    above = {1'b0, digit, 2'b00} + 6'd4;
    is = '0;
    of = '0;
    for (int i = 0; i < N; i++) begin
      code = wide ? {codes[i|1], codes[i&~1]} : 32'(codes[i]);
      is[i] = valid && !rst && (!wide || digit[2] == 1'(i)) && code >> above == (wide ? known : 32'(known[15:0])) >> above;
      of[i] = 4'(code >> {digit, 2'b00});
    end
  end
  function automatic logic [4:0] ones(input logic [15:0] bits);
    ones = 5'd0;
    for (int n = 0; n < 16; n++) ones = ones + 5'(bits[n]);
  endfunction
  logic [15:1][15:0] now, now1, now2;  // of a value
  always_comb begin
    now = '0;
    now1 = '0;
    now2 = '0;
    for (int b = 1; b < 16; b++) begin
      for (int i = 0; i < N; i++) begin
        now[b][i]  = is[i] && of[i] == 4'(b);
        now1[b][i] = is1[i] && of1[i] == 4'(b);
        now2[b][i] = is2[i] && of2[i] == 4'(b);
      end
    end
  end
  logic [15:1][4:0] ones3, ones4;
  logic [15:1][COUNT-1:0] seen;  // all that came
  always_ff @(posedge clk) begin
    is1 <= is;
    of1 <= of;
    is2 <= rst ? '0 : is1;
    of2 <= of1;
    for (int b = 1; b < 16; b++) begin
      ones3[b] <= rst ? 5'd0 : ones(now2[b]);
      ones4[b] <= rst ? 5'd0 : ones3[b];
      if (rst || (shift && moved == 4'd14)) seen[b] <= '0;
      else seen[b] <= seen[b] + COUNT'(ones(now[b]));
    end
  end

  // The claim.
  always_comb begin
    if (past) begin
      assert (done == ended[4]);
      if (came[4:1] == 4'd0) assert (counts == seen);
      if (came == 5'd0 && !cleared) assert (top == seen[4'd15-moved]);
      if (cleared) assert (counts == '0);
    end
  end

  // The bits that are read are those of counters and places of a cycle ago, from the second cycle on.
  function automatic logic [COUNT-1:0] counter(input logic [15:1][COUNT-1:0] all, input logic [3:0] of_value);
    counter = '0;
    for (int b = 1; b < 16; b++) if (of_value == 4'(b)) counter = all[b];
  endfunction
  logic past_twice = 1'b0;
  logic [15:1][COUNT-1:0] counts_q;
  logic [2:0] odd_at_q;
  logic [3:0] shifts_q;
  always_ff @(posedge clk) begin
    past_twice <= past;
    {counts_q, odd_at_q, shifts_q} <= {counts, odd_at, shifts};
  end
  always_comb begin
    if (past && !past_twice) assert (changed);
    if (past_twice) begin
      assert (changed || {counts_q, odd_at_q, shifts_q} == {counts, odd_at, shifts});
      assert (odd == counter(counts_q, 4'd15 - {odd_at_q, 1'b0}));
      assert (even == counter(counts_q, 4'd14 - {shifts_q[3:1], 1'b0}));
    end
  end

  // Stage by stage.
  always_comb begin
    if (past) begin
      assert (ends == ended[3:1]);
      assert (shifts == moved && moved < 4'd15 && odd_at == 3'((moved + 4'd1) >> 1));
      if (moved != 4'd0) assert (came == 5'd0 || came == 5'b10000);
      if (cleared) assert (came == 5'd0 && moved == 4'd0);
      assert ({some_found, some_few, some_high, even_valid || odd_valid} == came[4:1]);
      assert (some_high || high == '0);
      assert (came[1] || is1 == '0);
      assert (came[2] || is2 == '0);
      for (int i = 0; i < N; i++) begin
        if (i % 2 == 0) assert (is1[i] == (even_valid && fits[i] && (fits[i|1] || !whole)));
        else assert (is1[i] == (odd_valid && fits[i]));
        if (is1[i]) assert (value[i] == of1[i]);
        for (int b = 1; b < 16; b++) assert (now2[b][i] == (high[i][b/4] && low[i][b%4]));
      end
      for (int b = 1; b < 16; b++) begin
        assert (ones3[b] == ones({10'd0, few_low[b]}) + {ones({10'd0, few_high[b]}), 1'b0});
        assert (ones4[b] == found[b]);
        assert (came[3] || ones3[b] == 5'd0);
        assert (came[4] || ones4[b] == 5'd0);
        assert (seen[b] == counts[b] + COUNT'(ones(now1[b])) + COUNT'(ones(now2[b])) + COUNT'(ones3[b]) + COUNT'(ones4[b]));
      end
    end
  end
  always_comb cover (past && done && counts[15] != '0);
endmodule

bind digit_counter digit_counter_props #(.COUNT(COUNT), .N(N)) props (.*);
