// S scorers with the delays that they share, and the largest of a page's vectors: y of E = S / G entries and G
// queries.
//
// No stream: nothing stalls, and a step may come each cycle. `valid`, `tag`, `fold` and mantissas go first;
// dot2 and the coarse part of shift1 come in the next cycle, 0 of scorer, and the others in the cycles that
// scorer names. fold: y of entry 0 is the largest of the step's entries and of the steps before since
// `fold_first`. Latency: 10 cycles from valid to out_valid. layout::AddScores(base, layout::ScoreTerm(...)),
// shifts limited to 0..31 by the caller.
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
    input  logic [S/G-1:0][ 2:0]           mantissa,
    input  logic [S/G-1:0][ 4:0]           shift1,
    input  logic [S/G-1:0][G-1:0][24:0]    dot2,
    input  logic [S/G-1:0][G-1:0][ 4:0]    shift2,
    input  logic [G-1:0][15:0]             multiplier,
    input  logic [G-1:0][15:0]             base,
    output logic                           out_valid,
    output logic [TAG-1:0]                 out_tag,
    output logic [S*16-1:0]                y
);
  localparam int E = S / G;

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

  logic signed [E-1:0][G-1:0][16:0] sum;
  logic [E-1:0][G-1:0][15:0] score, folded;
  for (genvar e = 0; e < E; ++e) begin : g_entry
    logic [14:0] factor;
    logic [1:0] coarse1;
    scale_factor scale (
        .clk,
        .mantissa(mantissa[e]),
        .fine(shift1[e][2:0]),
        .factor
    );
    delay #(
        .WIDTH(2),
        .CYCLES(3)
    ) delay_coarse (
        .clk,
        .in_data(shift1[e][4:3]),
        .out_data(coarse1)
    );
    for (genvar g = 0; g < G; ++g) begin : g_query
      scorer unit (
          .clk,
          .moves(valids[7:0]),
          .dot2(dot2[e][g]),
          .factor,
          .coarse1,
          .multiplier(multiplier[g]),
          .shift2(shift2[e][g]),
          .base(base[g]),
          .sum(sum[e][g]),
          .y(score[e][g])
      );
    end
  end

  // A page has 4 vectors, so 4 / E steps. Two of a step's are compared before their limit: that keeps order.
  logic signed [15:0] left[G], right[G];
  logic [G-1:0][15:0] largest;
  for (genvar g = 0; g < G; ++g) begin : g_largest
    logic left_first;
    always_ff @(posedge clk) left_first <= $signed(sum[0][g]) > $signed(sum[E==1?0 : 1][g]);
    assign left[g] = left_first ? score[0][g] : score[E==1?0 : 1][g];
    if (E == 4) begin : g_four
      logic right_first;
      logic unused;
      always_ff @(posedge clk) right_first <= $signed(sum[2][g]) > $signed(sum[3][g]);
      assign right[g] = right_first ? score[2][g] : score[3][g];
      assign unused = &{1'b0, fold_first_then, 1'b0};
    end else begin : g_fewer
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
