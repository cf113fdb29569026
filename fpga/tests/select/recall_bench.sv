// The unit of weighted sums with a tap a lane, as the card joins them, and ports that a test can name.
module recall_bench #(
    parameter int CHANNELS = 4,
    parameter int G = 4,
    parameter int S = 16
) (
    input  logic                             clk,
    input  logic                             rst,
    input  logic [CHANNELS-1:0]              lane_valid,
    output logic [CHANNELS-1:0]              lane_ready,
    input  logic [31:0]                      lane_head[CHANNELS],
    input  logic [S*16-1:0]                  lane_y[CHANNELS],
    input  logic [4:0]                       lane_top[CHANNELS],
    output logic [CHANNELS-1:0]              score_valid,
    input  logic [CHANNELS-1:0]              score_ready,
    input  logic                             head_valid,
    output logic                             head_ready,
    input  card_types::hit_head_t            head,
    input  logic                             hit_valid,
    output logic                             hit_ready,
    input  card_types::hit_beat_t            hit_beat,
    input  logic [511:0]                     hit_ids,
    input  logic [511:0]                     hit_ranks,
    output logic                             octave_valid,
    input  logic                             octave_ready,
    output logic [4:0]                       octave,
    output logic                             out_head_valid,
    input  logic                             out_head_ready,
    output card_types::hit_head_t            out_head,
    output logic                             out_hit_valid,
    input  logic                             out_hit_ready,
    output card_types::hit_beat_t            out_hit_beat,
    output logic [511:0]                     out_hit_ids,
    output logic [511:0]                     out_hit_ranks
);
  import card_types::*;

  // Values go from the last lane to the first one, then to the unit.
  logic [CHANNELS:0] value_valid, value_counts;
  logic [CHANNELS:0][G*16-1:0] value_y;
  logic [CHANNELS:0][4:0] value_top;
  logic send_valid;
  logic [4:0] send_lane;
  logic [CHANNELS-1:0] send;
  assign value_valid[CHANNELS] = 1'b0;
  assign value_counts[CHANNELS] = 1'b0;
  assign value_y[CHANNELS] = '0;
  assign value_top[CHANNELS] = '0;

  always_ff @(posedge clk) begin
    for (int i = 0; i < CHANNELS; ++i) send[i] <= send_valid && send_lane == 5'(i) && !rst;
  end

  for (genvar i = 0; i < CHANNELS; ++i) begin : lane
    score_head_t its_head;
    assign its_head = lane_head[i][$bits(score_head_t)-1:0];
    recall_tap #(
        .G(G),
        .S(S)
    ) tap (
        .clk,
        .rst,
        .lane_valid(lane_valid[i]),
        .lane_ready(lane_ready[i]),
        .lane_head(its_head),
        .lane_y(lane_y[i]),
        .lane_top(lane_top[i]),
        .score_valid(score_valid[i]),
        .score_ready(score_ready[i]),
        .send(send[i]),
        .in_valid(value_valid[i+1]),
        .in_counts(value_counts[i+1]),
        .in_y(value_y[i+1]),
        .in_top(value_top[i+1]),
        .out_valid(value_valid[i]),
        .out_counts(value_counts[i]),
        .out_y(value_y[i]),
        .out_top(value_top[i])
    );
  end

  recall_unit #(
      .CHANNELS(CHANNELS),
      .G(G)
  ) unit (
      .value_valid(value_valid[0]),
      .value_counts(value_counts[0]),
      .value_y(value_y[0]),
      .value_top(value_top[0]),
      .*
  );
endmodule
