// The selector with ports that a test of any number of lanes can name: arrays a lane, structs field by field.
module selector_bench #(
    parameter int CHANNELS = 2,
    parameter int G = 4,
    parameter int S = 16,
    parameter int BANK_WORDS = 4096
) (
    input  logic                clk,
    input  logic                rst,
    output logic [31:0]         cycle,
    input  logic                job_valid,
    output logic                job_ready,
    input  logic                job_plain,
    input  logic                job_exp2,
    input  logic                job_relu,
    input  logic                job_bounded,
    input  logic [31:0]         job_bound,
    input  logic [1:0]          job_shape,
    input  logic [1:0]          job_of_page,
    input  logic [5:0]          job_group_last,
    input  logic [3:0]          job_pass_last,
    input  logic                job_listed,
    input  logic                job_to_list,
    input  logic                job_kept,
    input  logic                job_measured,
    input  logic                job_none,
    input  logic [23:0]         job_first_page,
    input  logic [23:0]         job_last_page,
    input  logic [5:0]          job_skip,
    input  logic [5:0]          job_last_entry,
    input  logic [4:0]          job_shift,
    input  logic [23:0]         job_k,
    input  logic [CHANNELS-1:0] score_valid,
    output logic [CHANNELS-1:0] score_ready,
    input  logic [31:0]         score_head[CHANNELS],
    input  logic [S*16-1:0]     score_y[CHANNELS],
    output logic [CHANNELS-1:0] list_valid,
    input  logic [CHANNELS-1:0] list_ready,
    output logic [31:0]         list_head[CHANNELS],
    output logic [63:0]         list_mask[CHANNELS],
    output logic                head_valid,
    input  logic                head_ready,
    output logic                head_to_list,
    output logic                head_measured,
    output logic [31:0]         head_scored,
    output logic [31:0]         head_pages,
    output logic [31:0]         head_candidates,
    output logic                head_cut,
    output logic [31:0]         head_count,
    output logic [31:0]         head_last_rank,
    output logic                hit_valid,
    input  logic                hit_ready,
    output logic                hit_last,
    output logic [4:0]          hit_count,
    output logic [511:0]        hit_ids,
    output logic [511:0]        hit_ranks
);

  import card_types::*;

  always_ff @(posedge clk) cycle <= rst ? 32'd0 : cycle + 32'd1;

  select_job_t job;
  score_head_t [CHANNELS-1:0] heads;
  logic [CHANNELS-1:0][S*16-1:0] scores;
  list_entry_t [CHANNELS-1:0] lists;
  hit_head_t head;
  hit_beat_t hit_beat;

  assign job = '{
          plain: job_plain,
          exp2: job_exp2,
          relu: job_relu,
          bounded: job_bounded,
          bound: job_bound,
          shape: shape_t'(job_shape),
          of_page: shape_t'(job_of_page),
          group_last: job_group_last,
          pass_last: job_pass_last,
          listed: job_listed,
          to_list: job_to_list,
          kept: job_kept,
          measured: job_measured,
          none: job_none,
          first_page: job_first_page,
          last_page: job_last_page,
          skip: job_skip,
          last_entry: job_last_entry,
          shift: job_shift,
          k: job_k,
          weigh: '0
      };
  for (genvar i = 0; i < CHANNELS; ++i) begin : lane
    assign heads[i] = score_head[i][$bits(score_head_t)-1:0];
    assign scores[i] = score_y[i];
    assign list_head[i] = 32'({lists[i].last, lists[i].none, lists[i].row});
    assign list_mask[i] = lists[i].mask;
    stream_if #(
        .WIDTH($bits(list_entry_t))
    ) check_list (
        .clk,
        .rst,
        .valid(list_valid[i]),
        .ready(list_ready[i]),
        .data(lists[i])
    );
  end

  selector #(
      .CHANNELS(CHANNELS),
      .G(G),
      .S(S),
      .BANK_WORDS(BANK_WORDS)
  ) selector (
      .clk,
      .rst,
      .cycle,
      .job_valid,
      .job_ready,
      .job,
      .score_valid,
      .score_ready,
      .score_head(heads),
      .score_y(scores),
      .list_valid,
      .list_ready,
      .list(lists),
      .head_valid,
      .head_ready,
      .head,
      .hit_valid,
      .hit_ready,
      .hit_beat,
      .hit_ids,
      .hit_ranks
  );

  assign head_to_list = head.to_list;
  assign head_measured = head.measured;
  assign head_scored = head.scored;
  assign head_pages = head.pages;
  assign head_candidates = head.candidates;
  assign head_cut = head.cut;
  assign head_count = head.count;
  assign head_last_rank = head.last_rank;
  assign hit_last = hit_beat.last;
  assign hit_count = hit_beat.count;

endmodule
