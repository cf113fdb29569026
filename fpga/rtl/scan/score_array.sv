// S scorers with the delays that they share, and the largest of a page's vectors: y of E = S / G entries and G
// queries.
//
// No stream: inputs of a step come together and a step may come each cycle; nothing stalls. `tag` goes with
// it. fold: y of entry 0 is the largest of the step's entries and of the steps before since `fold_first`.
// Latency: 10 cycles. layout::AddScores(base, layout::ScoreTerm(...)), shifts limited to 0..31 by the caller.
module score_array #(
    parameter int G = 4,
    parameter int S = 16,
    parameter int TAG = 1
) (
    input  logic                           clk,
    input  logic                           rst,
    input  logic                           valid,
    input  logic [TAG-1:0]                 tag,
    input  logic                           fold,
    input  logic                           fold_first,
    input  logic [S/G-1:0][G-1:0][23:0]    dots,
    input  logic [S/G-1:0][ 2:0]           mantissa,
    input  logic [S/G-1:0][ 4:0]           shift1,
    input  logic [G-1:0][15:0]             multiplier,
    input  logic [S/G-1:0][G-1:0][ 4:0]    shift2,
    input  logic [G-1:0][15:0]             base,
    output logic                           out_valid,
    output logic [TAG-1:0]                 out_tag,
    output logic [S*16-1:0]                y
);
  localparam int E = S / G;

  logic [E-1:0][4:0] shift1_then;
  logic [E-1:0][G-1:0][4:0] shift2_then;
  logic [G-1:0][15:0] multiplier_then, base_then;
  delay #(
      .WIDTH(5 * E),
      .CYCLES(3)
  ) delay_shift1 (
      .clk,
      .in_data(shift1),
      .out_data(shift1_then)
  );
  delay #(
      .WIDTH(16 * G),
      .CYCLES(4)
  ) delay_multiplier (
      .clk,
      .in_data(multiplier),
      .out_data(multiplier_then)
  );
  delay #(
      .WIDTH(5 * S),
      .CYCLES(6)
  ) delay_shift2 (
      .clk,
      .in_data(shift2),
      .out_data(shift2_then)
  );
  delay #(
      .WIDTH(16 * G),
      .CYCLES(8)
  ) delay_base (
      .clk,
      .in_data(base),
      .out_data(base_then)
  );

  logic [TAG-1:0] tag_then;
  logic fold_then, fold_first_then;
  logic [9:0] valids;
  delay #(
      .WIDTH(TAG + 2),
      .CYCLES(9)
  ) delay_tag (
      .clk,
      .in_data({tag, fold, fold_first}),
      .out_data({tag_then, fold_then, fold_first_then})
  );

  logic [E-1:0][G-1:0][15:0] score, folded;
  for (genvar e = 0; e < E; ++e) begin : g_entry
    for (genvar g = 0; g < G; ++g) begin : g_query
      logic signed [15:0] one;
      scorer unit (
          .clk,
          .dot(dots[e][g]),
          .mantissa(mantissa[e]),
          .shift1(shift1_then[e]),
          .multiplier(multiplier_then[g]),
          .shift2(shift2_then[e][g]),
          .base(base_then[g]),
          .y(one)
      );
      assign score[e][g] = one;
    end
  end

  // At most two comparisons one after the other: a page has 4 vectors, so 4 / E steps.
  logic signed [15:0] left[G], right[G];
  logic [G-1:0][15:0] largest;
  for (genvar g = 0; g < G; ++g) begin : g_largest
    if (E == 4) begin : g_four
      logic unused;
      assign unused = &{1'b0, fold_first_then, 1'b0};
      assign left[g] = $signed(score[0][g]) > $signed(score[1][g]) ? score[0][g] : score[1][g];
      assign right[g] = $signed(score[2][g]) > $signed(score[3][g]) ? score[2][g] : score[3][g];
    end else begin : g_fewer
      assign left[g] = $signed(score[0][g]) > $signed(score[E-1][g]) ? score[0][g] : score[E-1][g];
      assign right[g] = fold_first_then ? left[g] : folded[0][g];
    end
    assign largest[g] = left[g] > right[g] ? left[g] : right[g];
  end
  always_ff @(posedge clk) begin
    valids <= rst ? '0 : {valids[8:0], valid};
    if (valids[8]) begin
      folded <= score;
      if (fold_then) folded[0] <= largest;
      out_tag <= tag_then;
    end
  end
  assign out_valid = valids[9];
  assign y = folded;
endmodule
