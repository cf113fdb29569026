// layout::AddScores(base, layout::ScoreTerm(dot, ...)) of one vector and query, by three products: a shift to
// the right is a product by a power of two, then a choice between four shifts by multiples of 8. With PRODUCTS 2 the
// multiplier is shifted by LUTs: about 40 for a DSP.
//
// No stream: an input a cycle, nothing stalls. Inputs come in the cycle in which they are used, so that the caller may
// share their delays: dot2 (twice the dot product) and factor (of scale_factor) in cycle 0; shift2 (bits below of the
// second product) in cycle 1; coarse1 (bits below of dot * T8, by 8) and multiplier in cycle 2; base in cycle 6.
// Latency: sum, the score before its limit, in cycle 7; y in cycle 8. Both shifts are limited to 0..31 by the caller.
// moves[i]: an input is in its cycle i; registers of other cycles rest, for power.
module scorer #(
    parameter int PRODUCTS = 3
) (
    input  logic               clk,
    input  logic        [ 7:0] moves,
    input  logic signed [24:0] dot2,
    input  logic        [14:0] factor,
    input  logic        [ 1:0] coarse1,
    input  logic        [15:0] multiplier,
    input  logic        [ 4:0] shift2,
    input  logic signed [15:0] base,
    output logic signed [16:0] sum,
    output logic signed [15:0] y
);
  logic signed [15:0] v, window, term;
  logic [22:0] scaled;  // multiplier << (7 - shift2 % 8)
  logic [1:0] coarse2;
  logic over;

  // Bits that fit by the choice of DotShift, or that the limits of products leave out.
  // verilator lint_off UNUSEDSIGNAL
  logic signed [39:0] product1, product1_held;
  logic signed [38:0] product2, product2_held;
  logic [23:0] scaled_wide;
  // verilator lint_on UNUSEDSIGNAL

  delay #(
      .WIDTH(2),
      .CYCLES(4)
  ) delay_coarse (
      .clk,
      .in_data(shift2[4:3]),
      .out_data(coarse2)
  );

  assign scaled = scaled_wide[22:0];
  assign term = over ? {window[15], {15{~window[15]}}} : window;

  if (PRODUCTS == 3) begin : g_product
    logic [7:0] power;
    always_ff @(posedge clk) begin
      if (moves[1]) for (int i = 0; i < 8; ++i) power[i] <= shift2[2:0] == 3'(7 - i);
      if (moves[2]) scaled_wide <= multiplier * power;
    end
  end else begin : g_shift
    logic [2:0] up;
    always_ff @(posedge clk) begin
      if (moves[1]) up <= ~shift2[2:0];
      if (moves[2]) scaled_wide <= 24'(multiplier) << up;
    end
  end

  always_ff @(posedge clk) begin
    if (moves[0]) product1 <= 40'(dot2 * $signed({1'b0, factor}));
    if (moves[1]) product1_held <= product1;
    if (moves[2]) v <= 16'(product1_held >>> {3'd1 + 3'(coarse1), 3'd0});
    if (moves[3]) product2 <= 39'(v * $signed({1'b0, scaled}));
    if (moves[4]) product2_held <= product2;
    if (moves[5]) begin
      // Over 16 bits: its sign is kept at the top.
      unique case (coarse2)
        2'd0: window <= {product2_held[38], product2_held[21:7]};
        2'd1: window <= {product2_held[38], product2_held[29:15]};
        2'd2: window <= product2_held[38:23];
        2'd3: window <= {{8{product2_held[38]}}, product2_held[38:31]};
      endcase
      over <= !coarse2[1] && (product2_held[38:30] != {9{product2_held[38]}} ||
          (coarse2 == 2'd0 && product2_held[29:22] != {8{product2_held[38]}}));
    end
    if (moves[6]) sum <= 17'(term) + 17'(base);
    if (moves[7]) y <= (sum[16] == sum[15]) ? sum[15:0] : {sum[16], {15{~sum[16]}}};
  end
endmodule
