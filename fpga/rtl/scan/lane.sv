// One channel's score lane: reads the pages of a job from its channel and scores them, layout::Scores bit for
// bit, or of weighted ReLU layout::Ranks as codes.
//
// Streams: jobs (4 in the lane), queries (of two jobs), lists of listed jobs, scores; the AXI read port.
// Latency: about 80 cycles and the channel's from a job to its first scores. Stalls of the channel's beats:
// tables that are not built, scorers, score_ready; with a group of at most G, memory or scorers bound it.
// `stop`: nothing new is read, what comes is dropped, and the lane waits for rst; `open` tells when no
// transaction is left. A fault does the same, and is kept until rst.
module lane
  import card_types::*;
  import scan_types::*;
#(
    parameter int CHANNELS = 1,
    parameter int G = 4,
    parameter int S = 16
) (
    input  logic               clk,
    input  logic               rst,
    input  logic        [ 4:0] lane_id,
    input  logic        [33:0] base_beat,
    input  logic        [31:0] length_beats,
    input  logic               job_valid,
    output logic               job_ready,
    input  scan_job_t          job,
    input  logic               query_valid,
    output logic               query_ready,
    input  query_head_t        query_head,
    input  logic       [511:0] query_data,
    input  logic               list_valid,
    output logic               list_ready,
    // The contract's name; the simulator gives it another one in C++.
    // verilator lint_off SYMRSVDWORD
    input  list_entry_t        list,
    // verilator lint_on SYMRSVDWORD
    output logic               ar_valid,
    input  logic               ar_ready,
    output logic       [ 39:0] ar_addr,
    output logic       [  7:0] ar_len,
    input  logic               r_valid,
    output logic               r_ready,
    input  logic       [511:0] r_data,
    input  logic       [  1:0] r_resp,
    input  logic               r_last,
    output logic               score_valid,
    input  logic               score_ready,
    output score_head_t        score_head,
    output logic    [S*16-1:0] score_y,
    output logic        [  4:0] top,  // largest octave of the last job's pages
    input  logic               stop,
    output logic               open,
    output fault_t             fault,
    output logic               ev_beat,
    output logic               ev_stall_memory,
    output logic               ev_stall_tables,
    output logic               ev_stall_scorers,
    output logic               ev_stall_bank,
    output logic               ev_busy
);
  logic form_we, page_valid, beat_valid, beat_peeled, beat_freed, base_freed, page_freed, job_done, busy;
  logic [1:0] form_slot;
  form_t form;
  page_t page;
  logic [511:0] beat;
  channel_reader #(
      .CHANNELS(CHANNELS)
  ) reader (
      .clk,
      .rst,
      .lane_id,
      .base_beat,
      .length_beats,
      .job_valid,
      .job_ready,
      .job,
      .list_valid,
      .list_ready,
      .entry(list),
      .ar_valid,
      .ar_ready,
      .ar_addr,
      .ar_len,
      .r_valid,
      .r_ready,
      .r_data,
      .r_resp,
      .r_last,
      .form_we,
      .form_slot,
      .form,
      .page_valid,
      .page,
      .beat_valid,
      .beat,
      .beat_peeled,
      .beat_freed,
      .base_freed,
      .page_freed,
      .job_done,
      .stop,
      .open,
      .fault,
      .busy
  );

  logic plane_valid, plane_take, plane_last, plane_again;
  logic [511:0] plane, base_beat_data, scales;
  logic [5:0] base_written, low, high;
  logic [4:0] base_at, base_slot, score_slot;
  logic [7:0] base_scale;
  header_t header;
  logic [63:0] mask;
  page_buffer buffer (
      .clk,
      .rst,
      .form_we,
      .form_slot,
      .form,
      .page_valid,
      .page,
      .beat_valid,
      .beat,
      .beat_peeled,
      .beat_freed,
      .plane_valid,
      .plane_take,
      .plane_last,
      .plane_again,
      .plane,
      .base_written,
      .base_at,
      .base(base_beat_data),
      .base_slot,
      .base_scale,
      .score_slot,
      .header,
      .scales,
      .low,
      .high,
      .mask
  );

  logic plane_item_valid, plane_item_ready, base_item_valid, base_item_ready, score_item_valid, score_item_ready;
  item_t plane_item, base_item, score_item;
  logic build_valid, build_ready;
  build_t build;
  pass_planner planner (
      .clk,
      .rst,
      .form_we,
      .form_slot,
      .form,
      .page_valid,
      .page,
      .plane_valid(plane_item_valid),
      .plane_ready(plane_item_ready),
      .plane_item,
      .base_valid(base_item_valid),
      .base_ready(base_item_ready),
      .base_item,
      .score_valid(score_item_valid),
      .score_ready(score_item_ready),
      .score_item,
      .build_valid,
      .build_ready,
      .build
  );

  logic [3:0] filled;
  logic code_read, base_code_read, base_code_ready;
  logic [9:0] code_at, base_code_at;
  logic [G-1:0][15:0][7:0] codes, base_codes;
  logic [4:0] base_param_at, score_sum_at, score_multiplier_at;
  logic [G-1:0][15:0] base_multiplier, score_multiplier;
  logic [G-1:0][7:0] base_shift, score_shift;
  logic [G-1:0][16:0] score_sum;
  logic [G-1:0][15:0] score_weight;
  query_store #(
      .G(G)
  ) queries (
      .clk,
      .rst,
      .query_valid,
      .query_ready,
      .query_head,
      .query_data,
      .job_done,
      .filled,
      .code_read,
      .code_at,
      .codes,
      .base_code_read,
      .base_code_ready,
      .base_code_at,
      .base_codes,
      .base_at(base_param_at),
      .base_multiplier,
      .base_shift,
      .sum_at(score_sum_at),
      .score_shift,
      .score_sum,
      .multiplier_at(score_multiplier_at),
      .score_multiplier,
      .score_weight
  );

  logic table_we, table_bank;
  logic [2:0] table_segment;
  logic [3:0] table_at;
  logic [1:0] table_merge, plane_full, base_full;
  logic [G-1:0][15:0][9:0] table_sums;
  logic plane_release, plane_release_bank, base_release, base_release_bank;
  table_control #(
      .G(G)
  ) tables (
      .clk,
      .rst,
      .form_we,
      .form_slot,
      .form,
      .build_valid,
      .build_ready,
      .build,
      .filled,
      .code_read,
      .code_at,
      .codes,
      .table_we,
      .table_bank,
      .table_segment,
      .table_merge,
      .table_at,
      .table_sums,
      .plane_full,
      .base_full,
      .plane_release,
      .plane_release_bank,
      .base_release,
      .base_release_bank
  );

  logic block_done, block_free, wait_tables, wait_block;
  logic [4:0] read_row;
  logic [7:0][G-1:0][23:0] dots;
  plane_core #(
      .G(G)
  ) planes (
      .clk,
      .rst,
      .form_we,
      .form_slot,
      .form,
      .item_valid(plane_item_valid),
      .item_ready(plane_item_ready),
      .item(plane_item),
      .plane_valid,
      .plane_take,
      .plane_last,
      .plane_again,
      .plane,
      .table_we,
      .table_bank,
      .table_segment,
      .table_at,
      .table_sums,
      .table_merge,
      .full(plane_full),
      .release_valid(plane_release),
      .release_bank(plane_release_bank),
      .block_done,
      .block_free,
      .read_row,
      .dots,
      .wait_tables,
      .wait_block
  );

  logic base_y_valid, base_y_ready;
  logic [3:0] base_y_at;
  logic [G-1:0][15:0] base_y;
  base_path #(
      .G(G)
  ) bases (
      .clk,
      .rst,
      .form_we,
      .form_slot,
      .form,
      .item_valid(base_item_valid),
      .item_ready(base_item_ready),
      .item(base_item),
      .code_read(base_code_read),
      .code_ready(base_code_ready),
      .code_at(base_code_at),
      .codes(base_codes),
      .full(base_full),
      .release_valid(base_release),
      .release_bank(base_release_bank),
      .base_written,
      .base_at,
      .base(base_beat_data),
      .base_freed,
      .scale_slot(base_slot),
      .scale(base_scale),
      .param_at(base_param_at),
      .multiplier(base_multiplier),
      .shift(base_shift),
      .y_valid(base_y_valid),
      .y_ready(base_y_ready),
      .y_at(base_y_at),
      .y(base_y)
  );

  score_stage #(
      .G(G),
      .S(S)
  ) scores (
      .clk,
      .rst,
      .form_we,
      .form_slot,
      .form,
      .item_valid(score_item_valid),
      .item_ready(score_item_ready),
      .item(score_item),
      .header,
      .block_done,
      .block_free,
      .read_row,
      .dots,
      .page_slot(score_slot),
      .scales,
      .low,
      .high,
      .mask,
      .sum_at(score_sum_at),
      .shift(score_shift),
      .sum(score_sum),
      .multiplier_at(score_multiplier_at),
      .multiplier(score_multiplier),
      .weight(score_weight),
      .base_valid(base_y_valid),
      .base_ready(base_y_ready),
      .base_at(base_y_at),
      .base(base_y),
      .filled,
      .page_freed,
      .job_done,
      .score_valid,
      .score_ready,
      .score_head,
      .score_y
  );

  top_octave octaves (.*);

  always_ff @(posedge clk) begin
    if (rst) begin
      {ev_beat, ev_busy, ev_stall_memory, ev_stall_tables, ev_stall_scorers, ev_stall_bank} <= '0;
    end else begin
      ev_beat <= r_valid && r_ready;
      ev_busy <= busy;
      ev_stall_memory <= busy && open && !plane_valid;
      ev_stall_tables <= wait_tables;
      ev_stall_scorers <= wait_block;
      ev_stall_bank <= score_valid && !score_ready;
    end
  end

  stream_if #(
      .WIDTH($bits(score_head_t) + S * 16)
  ) check_score (
      .clk,
      .rst,
      .valid(score_valid),
      .ready(score_ready),
      .data({score_head, score_y})
  );
  stream_if #(
      .WIDTH($bits(scan_job_t))
  ) check_job (
      .clk,
      .rst,
      .valid(job_valid),
      .ready(job_ready),
      .data(job)
  );
  stream_if #(
      .WIDTH($bits(list_entry_t))
  ) check_list (
      .clk,
      .rst,
      .valid(list_valid),
      .ready(list_ready),
      .data(list)
  );
endmodule
