// Selects the k best entries of each job from the scores of all lanes: two banks of scores a lane, the last rank
// by digits of 4 bits, hits in page order as ids and ranks, or as lists for the lanes.
//
// Streams: jobs in the order in which lanes scan them; a lane's scores; a head a job, then beats of 16 ids and ranks, or
// a list a lane. A lane's scores wait only while both banks hold jobs whose hits it has not found. While a job
// is collected the next one is swept, and then the lanes find its hits. Cycles of a job of t tokens from its last score to its
// last hit: about t / (8 * CHANNELS) + 3 t / (16 * CHANNELS) + 140 + hit groups, plain max one more of the 16ths; never more
// than its hits beyond that. A job in passes reads its words once a pass.
// `scored` is the cycle in which all lanes' scores were stored.
//
// Equals layout::Ranks for kGroupMax and kGroupPlainMax, layout::TopK, and the results of layout::ScoreSelect
// without kFlagByRank.
module selector #(
    parameter int CHANNELS = 2,
    parameter int G = 4,
    parameter int S = 16,
    parameter int BANK_WORDS = 4096
) (
    input  logic                                          clk,
    input  logic                                          rst,
    input  logic [31:0]                                   cycle,
    input  logic                                          job_valid,
    output logic                                          job_ready,
    input  card_types::select_job_t                       job,
    input  logic                    [CHANNELS-1:0]        score_valid,
    output logic                    [CHANNELS-1:0]        score_ready,
    input  card_types::score_head_t [CHANNELS-1:0]        score_head,
    input  logic [CHANNELS-1:0][S*16-1:0]                 score_y,
    output logic                    [CHANNELS-1:0]        list_valid,
    input  logic                    [CHANNELS-1:0]        list_ready,
    /* verilator lint_off SYMRSVDWORD */  // a word of C++ alone
    output card_types::list_entry_t [CHANNELS-1:0]        list,
    /* verilator lint_on SYMRSVDWORD */
    output logic                                          head_valid,
    input  logic                                          head_ready,
    output card_types::hit_head_t                         head,
    output logic                                          hit_valid,
    input  logic                                          hit_ready,
    output card_types::hit_beat_t                         hit_beat,
    output logic [511:0]                                  hit_ids,
    output logic [511:0]                                  hit_ranks
);

  import card_types::*;
  import select_types::*;

  localparam int SUM = 28;  // bits of counts over all lanes

  sweep_command_t sweep_command;
  read_command_t read_command;
  best_write_t best_write;
  collect_command_t collect_command;
  list_write_t list_write;
  logic [CHANNELS-1:0][1:0] filled;
  logic [CHANNELS-1:0] sweep_done, value_valid, best_valid, page_valid, page_ready, body_take, hits_ended;
  logic [CHANNELS-1:0][SUM-1:0] value;
  logic [CHANNELS-1:0][15:0] best;
  hit_page_t [CHANNELS-1:0] page_of_hits;
  hit_body_t [CHANNELS-1:0] body;
  logic clear;

  for (genvar i = 0; i < CHANNELS; ++i) begin : lane
    select_lane #(
        .CHANNELS(CHANNELS),
        .G(G),
        .S(S),
        .BANK_WORDS(BANK_WORDS),
        .SUM(SUM)
    ) lane (
        .clk,
        .rst,
        .lane_id(5'(i)),
        .score_valid(score_valid[i]),
        .score_ready(score_ready[i]),
        .score_head(score_head[i]),
        .score_y(score_y[i]),
        .list_valid(list_valid[i]),
        .list_ready(list_ready[i]),
        .list(list[i]),
        .sweep_command,
        .read_command,
        .best_write,
        .collect_command,
        .list_write,
        .filled(filled[i]),
        .sweep_done(sweep_done[i]),
        .value_valid(value_valid[i]),
        .value(value[i]),
        .best_valid(best_valid[i]),
        .best(best[i]),
        .page_valid(page_valid[i]),
        .page_ready(page_ready[i]),
        .page_of_hits(page_of_hits[i]),
        .body_take(body_take[i]),
        .body(body[i]),
        .hits_ended(hits_ended[i])
    );
  end

  // The words of all lanes.
  logic [1:0] all_filled;
  logic all_done, all_ended;
  always_ff @(posedge clk) begin
    all_filled <= 2'b11;
    for (int i = 0; i < CHANNELS; ++i) begin
      for (int b = 0; b < 2; ++b) if (!filled[i][b]) all_filled[b] <= 1'b0;
    end
    all_done <= &sweep_done;
    all_ended <= &hits_ended;
    if (rst) begin
      all_filled <= 2'b00;
      all_done <= 1'b0;
      all_ended <= 1'b0;
    end
  end

  logic sum_valid, largest_valid;
  logic [SUM-1:0] sum;
  logic [15:0] largest;
  digit_reduce #(
      .CHANNELS(CHANNELS),
      .SUM(SUM)
  ) reduce (
      .clk,
      .rst,
      .value_valid,
      .value,
      .best_valid,
      .best,
      .sum_valid,
      .sum,
      .largest_valid,
      .largest
  );

  logic next_valid, next_ready;
  select_job_t next;
  /* verilator lint_off UNUSEDSIGNAL */
  logic [2:0] jobs;
  /* verilator lint_on UNUSEDSIGNAL */
  fifo #(
      .WIDTH($bits(select_job_t)),
      .DEPTH(4)
  ) job_fifo (
      .clk,
      .rst,
      .in_valid(job_valid),
      .in_ready(job_ready),
      .in_data(job),
      .out_valid(next_valid),
      .out_ready(next_ready),
      .out_data(next),
      .level(jobs)
  );

  logic found_valid, found_ready;
  hit_head_t found;
  logic decision_valid, decision_ready;
  decision_t decision, collected;
  sweep_control #(
      .SUM(SUM)
  ) sweeps (
      .clk,
      .rst,
      .cycle,
      .job_valid(next_valid),
      .job_ready(next_ready),
      .job(next),
      .filled(all_filled),
      .sweep_done(all_done),
      .sum_valid,
      .sum,
      .best_valid(largest_valid),
      .best(largest),
      .sweep_command,
      .read_command,
      .best_write,
      .head_valid(found_valid),
      .head_ready(found_ready),
      .head(found),
      .decision_valid,
      .decision_ready,
      .decision
  );

  skid #(
      .WIDTH($bits(hit_head_t))
  ) head_skid (
      .clk,
      .rst,
      .in_valid(found_valid),
      .in_ready(found_ready),
      .in_data(found),
      .out_valid(head_valid),
      .out_ready(head_ready),
      .out_data(head)
  );

  logic start, exhausted, done, fill_slot, merged_valid, merged_ready;
  hit_page_t merged;
  wire pages_end = merged_valid && merged_ready && merged.finish;
  collect_control collects (
      .clk,
      .rst,
      .decision_valid,
      .decision_ready,
      .decision,
      .exhausted,
      .done,
      .pages_end,
      .lanes_ended(all_ended),
      .start,
      .clear,
      .now(collected),
      .fill_slot,
      .command(collect_command)
  );

  merge_tree #(
      .CHANNELS(CHANNELS)
  ) merge (
      .clk,
      .rst(rst || clear),
      .in_valid(page_valid),
      .in_ready(page_ready),
      .in_page(page_of_hits),
      .out_valid(merged_valid),
      .out_ready(merged_ready),
      .out_page(merged)
  );

  logic group_valid, group_ready;
  hit_group_t group;
  assign merged_ready = group_ready;
  body_fetch #(
      .CHANNELS(CHANNELS)
  ) fetch (
      .clk,
      .rst(rst || clear),
      .page_valid(merged_valid && merged_ready),
      .page(merged),
      .take(body_take),
      .body,
      .group_valid,
      .group
  );

  hit_collector #(
      .CHANNELS(CHANNELS)
  ) collector (
      .clk,
      .rst,
      .start,
      .clear,
      .pages_end,
      .decision(collected),
      .list_slot(fill_slot),
      .exhausted,
      .done,
      .group_valid,
      .group_ready,
      .group,
      .list_write,
      .hit_valid,
      .hit_ready,
      .hit_beat,
      .hit_ids,
      .hit_ranks
  );

endmodule
