// layout::AddScores(base, layout::ScoreTerm(dot, ...)) of one vector and query, by two products.
//
// No stream: an input a cycle, nothing stalls. Inputs come in the cycle in which they are used, so that the
// caller may share their delays: dot and mantissa (scale & 7) in cycle 0; shift1 (bits below of dot * T8) in
// cycle 3; multiplier in cycle 4; shift2 (bits below of the second product) in cycle 6; base in cycle 8.
// Latency: y in cycle 9. Both shifts are limited to 0..31 by the caller.
module scorer (
    input  logic               clk,
    input  logic signed [23:0] dot,
    input  logic        [ 2:0] mantissa,
    input  logic        [ 4:0] shift1,
    input  logic        [15:0] multiplier,
    input  logic        [ 4:0] shift2,
    input  logic signed [15:0] base,
    output logic signed [15:0] y
);
  logic signed [23:0] dot_held;
  logic [7:0] t8;
  logic signed [32:0] product1, product1_held;
  logic signed [15:0] v;
  logic signed [32:0] product2, product2_held;
  logic signed [31:0] term;
  logic signed [15:0] term_limited;
  logic signed [16:0] sum;

  // Bits that fit by the choice of DotShift, or that the limits of products leave out.
  // verilator lint_off UNUSEDSIGNAL
  logic signed [32:0] v_wide, term_wide;
  // verilator lint_on UNUSEDSIGNAL

  assign v_wide = product1_held >>> shift1;
  assign term_wide = product2_held >>> shift2;
  assign sum = 17'(term_limited) + 17'(base);

  always_ff @(posedge clk) begin
    dot_held <= dot;
    t8 <= mnemo_pkg::SCALE_MANTISSA[mantissa];
    product1 <= dot_held * $signed({1'b0, t8});
    product1_held <= product1;
    v <= v_wide[15:0];
    product2 <= v * $signed({1'b0, multiplier});
    product2_held <= product2;
    term <= term_wide[31:0];
    term_limited <= (term[31:15] == '0 || term[31:15] == '1) ? term[15:0] : {term[31], {15{~term[31]}}};
    y <= (sum[16] == sum[15]) ? sum[15:0] : {sum[16], {15{~sum[16]}}};
  end
endmodule
