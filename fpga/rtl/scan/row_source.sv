// The rows of a lane's page list that a job scans, in order.
//
// Streams: job, list (read for listed jobs alone, one list each), row. Virtual page r * CHANNELS + lane_id is
// row r. A job without a page in this lane gives one row with `none`. Jobs in the lane: 4; job_done frees the
// slot of the oldest. form_* tells the stages behind what they need of a job, before its first row.
// Rows of a listed job have a mask, and no range. Latency: 3 cycles from job to its first row, then a row a cycle, one of a
// list in two cycles: list_ready is a register, and says that there will be room. Stalls: row_ready, job slots, the entry.
module row_source
  import card_types::*;
  import scan_types::*;
#(
    parameter int CHANNELS = 1
) (
    input  logic        clk,
    input  logic        rst,
    input  logic [ 4:0] lane_id,
    input  logic        job_valid,
    output logic        job_ready,
    // Fields of scan_job_t that no lane needs.
    // verilator lint_off UNUSEDSIGNAL
    input  scan_job_t   job,
    // verilator lint_on UNUSEDSIGNAL
    input  logic        list_valid,
    output logic        list_ready,
    input  list_entry_t entry,
    output logic        form_we,
    output logic [ 1:0] form_slot,
    output form_t       form,
    output logic        row_valid,
    input  logic        row_ready,
    output row_t        row,
    output logic [31:0] row_beat,  // of the page list, from the channel's base
    input  logic        job_done,
    output logic        busy  // jobs are in the lane, and not one alone that waits for its list
);
  localparam int LOG = $clog2(CHANNELS);

  typedef enum logic [2:0] {
    IDLE,
    LISTED,
    COUNT,
    RANGE,
    EMPTY
  } state_t;

  state_t state;
  logic [2:0] jobs;
  logic [1:0] slot;
  logic [23:0] at, left;  // RANGE; rows after this one
  logic [24:0] row_last;  // signed
  logic none, first, at_last;
  logic [5:0] low, high;  // of the first and of the last row
  logic [31:0] list_base;
  logic take, space, emit, waits;

  // The first and the last row of the range, by lane.
  logic [23:0] job_first_row, job_last_row;
  logic low_later, high_earlier;
  logic low_here, high_here;
  if (CHANNELS == 1) begin : g_one
    assign job_first_row = job.first_page;
    assign job_last_row = job.last_page;
    assign low_later = 1'b0;
    assign high_earlier = 1'b0;
    assign low_here = 1'b1;
    assign high_here = 1'b1;
  end else begin : g_many
    logic [LOG-1:0] lane;
    assign lane = lane_id[LOG-1:0];
    assign job_first_row = 24'(job.first_page[23:LOG]);
    assign job_last_row = 24'(job.last_page[23:LOG]);
    assign low_later = lane < job.first_page[LOG-1:0];
    assign high_earlier = lane > job.last_page[LOG-1:0];
    assign low_here = lane == job.first_page[LOG-1:0];
    assign high_here = lane == job.last_page[LOG-1:0];
  end
  logic unused;
  assign unused = &{1'b0, lane_id, entry.row[18:0], 1'b0};
  assign form_we = take;
  assign form_slot = slot;
  assign form = '{
          kind: job.kind,
          merge: {~job.vector_log2[1], job.vector_log2[0]},
          planes: job.planes,
          two_bit: job.two_bit,
          sign_stage: job.sign_stage,
          page_row: job.page_row,
          fold: job.fold,
          code_shift: job.code_shift,
          base_shift: job.base_shift,
          group_last: job.group_last,
          pass_last: job.pass_last,
          relu: job.relu,
          part: job.part,
          listed: job.listed,
          maxima: job.maxima
      };

  assign job_ready = state == IDLE && jobs != 3'd4;
  assign take = job_valid && job_ready;
  assign space = !row_valid || row_ready;
  assign emit = (space && (state == RANGE || state == EMPTY)) || (list_valid && list_ready);
  assign waits = jobs == 3'd1 && state == LISTED && first && !list_valid;
  assign busy = jobs != '0 && !waits;

  logic [23:0] row_now;
  logic [19:0] beat_before;  // row / 16 of the row before
  logic row_is_none, row_is_last, beat_begins;
  assign row_now = state == LISTED ? 24'(entry.row) : at;
  assign row_is_none = state == EMPTY || (state == LISTED && entry.none);
  assign row_is_last = state == EMPTY || (state == LISTED ? entry.last || entry.none : at_last);
  assign beat_begins = state == LISTED ? 20'(entry.row[18:4]) != beat_before : at[3:0] == '0;

  always_ff @(posedge clk) begin
    if (rst) begin
      state <= IDLE;
      jobs <= '0;
      slot <= '0;
      row_valid <= 1'b0;
      list_ready <= 1'b0;
    end else begin
      jobs <= jobs + 3'(take) - 3'(job_done);
      if (take) state <= job.listed ? LISTED : COUNT;
      else if (state == COUNT) state <= none || row_last[24] || at > row_last[23:0] ? EMPTY : RANGE;
      else if (emit && row_is_last) state <= IDLE;
      if (emit && row_is_last) slot <= slot + 2'd1;
      if (space) row_valid <= emit;
      list_ready <= state == LISTED && space && !emit;
    end
  end

  always_ff @(posedge clk) begin
    if (take) begin
      at <= job_first_row + 24'(low_later);
      row_last <= 25'(job_last_row) - 25'(high_earlier);
      none <= job.none;
      low <= low_here ? job.skip : '0;
      high <= high_here ? job.last_entry : '1;
      list_base <= job.list_beat;
      first <= 1'b1;
    end else if (emit) begin
      at <= at + 24'd1;
      first <= 1'b0;
    end
    if (state == COUNT || emit) begin
      left <= (state == COUNT ? row_last[23:0] : left) - (state == COUNT ? at : 24'd1);
      at_last <= state == COUNT ? at == row_last[23:0] : left == 24'd1;
    end
    if (emit) begin
      beat_before <= row_now[23:4];
      row_beat <= list_base + 32'(row_now[23:4]);
      row <= '{
          none: row_is_none,
          first: first,
          last: row_is_last,
          job: slot,
          fetch: !row_is_none && (first || beat_begins),
          element: row_now[3:0],
          low: first ? low : '0,
          high: at_last ? high : '1,
          mask: entry.mask
      };
    end
  end
endmodule
