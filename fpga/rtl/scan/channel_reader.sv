// Reads the blocks of a job's pages from one channel: AXI4, one id, bursts of at most 64 beats within 4 KiB.
//
// Streams: job, list; beats of blocks (beat_valid, never stalled: bursts are asked for only when page_buffer
// has room for them); a page's description (page_valid, never stalled) before its first beat. Page lists are
// read ahead, 16 rows a beat, each beat once. Latency: 11 cycles from job to the first address, then a burst each
// third cycle and at most a page each 7 cycles. Stalls: ar_ready, 32 bursts under way, room for beats, page slots.
// A block or list beat outside of the channel and a response that is not OKAY are faults: then, as with
// `stop`, nothing new is asked for and what still comes is dropped.
module channel_reader
  import card_types::*;
  import scan_types::*;
#(
    parameter int CHANNELS = 1,
    parameter int ROOM = 512  // beats that page_buffer holds
) (
    input  logic         clk,
    input  logic         rst,
    input  logic  [ 4:0] lane_id,
    input  logic  [33:0] base_beat,
    input  logic  [31:0] length_beats,
    input  logic         job_valid,
    output logic         job_ready,
    input  scan_job_t    job,
    input  logic         list_valid,
    output logic         list_ready,
    input  list_entry_t  entry,
    output logic         ar_valid,
    input  logic         ar_ready,
    output logic  [39:0] ar_addr,
    output logic  [ 7:0] ar_len,
    input  logic         r_valid,
    output logic         r_ready,
    input  logic [511:0] r_data,
    input  logic  [ 1:0] r_resp,
    input  logic         r_last,
    output logic         form_we,
    output logic  [ 1:0] form_slot,
    output form_t        form,
    output logic         page_valid,
    output page_t        page,
    output logic         beat_valid,
    output logic [511:0] beat,
    input  logic         beat_peeled,  // a beat left page_buffer's room at once
    input  logic         beat_freed,   // or after its last pass
    input  logic         base_freed,   // a beat of a base
    input  logic         page_freed,   // a page slot
    input  logic         job_done,
    input  logic         stop,
    output logic         open,
    output fault_t       fault,
    output logic         busy          // as row_source says it
);
  localparam int LISTS = 8;  // beats of the page list that are held
  localparam logic [9:0] BEATS = 10'(ROOM);

  logic halt;
  assign halt = stop || fault != FAULT_NONE;

  // Rows, and requests of their beats of the page list.
  logic row_valid, row_ready;
  row_t row;
  logic [31:0] row_beat;
  row_source #(
      .CHANNELS(CHANNELS)
  ) source (
      .clk,
      .rst,
      .lane_id,
      .job_valid,
      .job_ready,
      .job,
      .list_valid,
      .list_ready,
      .entry,
      .form_we,
      .form_slot,
      .form,
      .row_valid,
      .row_ready,
      .row,
      .row_beat,
      .job_done,
      .busy
  );

  logic rows_ready, rows_valid, rows_take;
  row_t head;
  logic [$bits(row_t)-1:0] head_bits;
  logic [5:0] unused_rows_level;
  fifo_late #(
      .WIDTH($bits(row_t)),
      .DEPTH(32)
  ) rows (
      .clk,
      .rst,
      .in_valid(row_valid && row_ready),
      .in_ready(rows_ready),
      .in_data(row),
      .out_valid(rows_valid),
      .out_ready(rows_take),
      .out_data(head_bits),
      .level(unused_rows_level)
  );
  assign head = row_t'(head_bits);

  logic [3:0] lists_held;  // beats asked for and not yet used up
  logic fetch_ok;  // a row may ask for a beat: a cycle late, so that each third row may
  logic want_valid, list_ar_valid, list_ar_take, list_free;
  logic [31:0] want_beat;
  logic [33:0] list_ar_beat;
  assign row_ready = rows_ready && (!row.fetch || fetch_ok);

  logic want_out;
  assign want_out = want_valid && !list_ar_valid;
  always_ff @(posedge clk) begin
    if (rst) begin
      want_valid <= 1'b0;
      list_ar_valid <= 1'b0;
      lists_held <= '0;
      fetch_ok <= 1'b0;
    end else begin
      fetch_ok <= !halt && !want_valid && !(row_valid && row_ready && row.fetch) && lists_held != 4'(LISTS);
      if (row_valid && row_ready && row.fetch) want_valid <= 1'b1;
      else if (want_out) want_valid <= 1'b0;
      if (want_out) list_ar_valid <= want_beat < length_beats;
      else if (list_ar_take) list_ar_valid <= 1'b0;
      lists_held <= lists_held + 4'(row_valid && row_ready && row.fetch) - 4'(list_free);
    end
    if (row_valid && row_ready && row.fetch) want_beat <= row_beat;
    if (want_out) list_ar_beat <= base_beat + 34'(want_beat);
  end

  // Beats of the page list.
  logic list_data_valid, list_we;
  logic [15:0][31:0] list_data;
  logic [$clog2(LISTS):0] lists_written, lists_read;
  logic r_list, r_fire, tag_valid;
  assign list_we = r_fire && r_list && !halt && r_resp == '0;
  assign list_data_valid = lists_written != lists_read;
  always_ff @(posedge clk) begin
    if (rst) begin
      lists_written <= '0;
      lists_read <= '0;
    end else begin
      if (list_we) lists_written <= lists_written + 1'b1;
      if (list_free) lists_read <= lists_read + 1'b1;
    end
  end
  ram_lut #(
      .WIDTH(512),
      .DEPTH(LISTS)
  ) lists (
      .clk,
      .we(list_we),
      .waddr(lists_written[$clog2(LISTS)-1:0]),
      .wdata(r_data),
      .raddr(lists_read[$clog2(LISTS)-1:0]),
      .rdata(list_data)
  );

  // The blocks of a job, by job slot.
  typedef struct packed {
    logic [2:0]  base_beats;
    logic [31:0] block_beat;
    logic [8:0]  first_beats;
    logic [8:0]  second_at;
    logic [8:0]  second_beats;
    logic        one;  // no second part
    logic [9:0]  span;
  } block_t;
  block_t block_in, block;  // block: of the row at hand, a cycle after it came
  logic [$bits(block_t)-1:0] block_bits;
  assign block_in = '{
          base_beats: job.kind != KIND_CODES ? 3'd0 : form.merge == 2'd0 ? 3'd1 : form.merge == 2'd1 ? 3'd2 : 3'd4,
          block_beat: job.block_beat,
          first_beats: job.first_beats,
          second_at: job.second_at,
          second_beats: job.second_beats,
          one: job.second_beats == '0,
          span: job.second_beats == '0 ? 10'(job.first_beats) : 10'(job.second_at) + 10'(job.second_beats)
      };
  ram_lut #(
      .WIDTH($bits(block_t)),
      .DEPTH(4)
  ) blocks (
      .clk,
      .we(form_we),
      .waddr(form_slot),
      .wdata(block_in),
      .raddr(head.job),
      .rdata(block_bits)
  );
  always_ff @(posedge clk) block <= block_t'(block_bits);

  // Pages: the extent, its check, and its bursts.
  typedef enum logic [2:0] {
    WAIT,
    PLACE,
    ENDS,
    CHECK,
    READ,
    SECOND
  } state_t;
  state_t state;
  logic holding;  // the list's beat at hand is that of the rows
  logic [31:0] extent;
  logic [32:0] start;  // beats from the channel's base
  logic [33:0] finish;
  logic [33:0] address;
  logic [5:0] pages_free, bases_free;
  logic [4:0] page_slot;
  logic [2:0] bases_taken;  // in the cycle before
  logic list_need, outside, page_taken;
  logic pages_ok, bases_ok;  // late; none goes with `halt`, nor in the 2 cycles after another, of blocks in the 4 after
  logic split_start, split_busy, burst_valid, burst_take;
  logic [33:0] split_base;
  logic [9:0] split_beats;
  logic [39:0] burst_addr;
  logic [7:0] burst_len;

  assign list_need = state == WAIT && rows_valid && !head.none;
  assign list_free = list_need && head.fetch && holding && list_data_valid;
  assign outside = finish > 34'(length_beats);
  assign page_valid = pages_ok &&
      ((state == READ && bases_ok && !split_busy) || (state == WAIT && rows_valid && head.none));
  assign page = '{
          none: head.none,
          first: head.first,
          last: head.last,
          job: head.job,
          slot: page_slot,
          low: head.low,
          high: head.high,
          mask: head.mask
      };
  assign split_start = !split_busy && ((state == READ && pages_ok && bases_ok) || state == SECOND);
  assign split_base = state == SECOND ? address + 34'(block.second_at) : address;
  assign split_beats = state == SECOND ? 10'(block.second_beats) : 10'(block.first_beats);
  assign rows_take = (page_valid && (head.none || block.one)) || (state == SECOND && split_start);

  always_ff @(posedge clk) begin
    if (rst) begin
      state <= WAIT;
      holding <= 1'b0;
      pages_free <= 6'd30;
      bases_free <= 6'd32;
      page_slot <= '0;
      pages_ok <= 1'b0;
      bases_ok <= 1'b0;
      page_taken <= 1'b0;
      bases_taken <= '0;
    end else begin
      // A beat that is used up leaves first; a row of the same beat does not wait.
      if (list_free) holding <= 1'b0;
      else if (list_need && list_data_valid) holding <= 1'b1;
      unique case (state)
        WAIT: if (list_need && list_data_valid && !(head.fetch && holding)) state <= PLACE;
        PLACE: state <= ENDS;
        ENDS: state <= CHECK;
        CHECK: if (!outside) state <= READ;
        READ: if (page_valid) state <= block.one ? WAIT : SECOND;
        default: if (split_start) state <= WAIT;
      endcase
      page_taken <= page_valid;
      bases_taken <= page_valid && !head.none ? block.base_beats : '0;
      pages_free <= pages_free - 6'(page_taken) + 6'(page_freed);
      bases_free <= bases_free - 6'(bases_taken) + 6'(base_freed);
      page_slot <= page_slot + 5'(page_taken);
      pages_ok <= pages_free != '0 && !page_valid && !page_taken && !halt;
      bases_ok <= bases_free >= 6'(block.base_beats);
    end
    if (state == WAIT) extent <= list_data[head.element];
    start <= 33'(extent) + 33'(block.block_beat);
    finish <= 34'(start) + 34'(block.span);
    address <= base_beat + 34'(start);
  end

  burst_split split (
      .clk,
      .rst,
      .start(split_start),
      .base({split_base, 6'd0}),
      .beats(split_beats),
      .out_valid(burst_valid),
      .out_ready(burst_take),
      .out_addr(burst_addr),
      .out_len(burst_len),
      .busy(split_busy)
  );

  // Addresses: page lists go first.
  logic [9:0] room;  // beats, without what changed in the cycle before
  logic signed [8:0] change;
  logic [5:0] bursts;
  logic ar_free, ends_burst, bursts_ok, fits, asked;  // asked: a burst went in the cycle before
  assign ar_free = (!ar_valid || ar_ready) && !halt && bursts_ok;
  assign list_ar_take = ar_free && list_ar_valid;
  assign burst_take = ar_free && !list_ar_valid && fits;
  assign ends_burst = r_fire && r_last;
  assign open = bursts != '0;

  logic burst_fire;
  assign burst_fire = burst_take && burst_valid;
  always_ff @(posedge clk) begin
    if (rst) begin
      ar_valid <= 1'b0;
      bursts <= '0;
      bursts_ok <= 1'b0;
      room <= BEATS;
      change <= '0;
      fits <= 1'b0;
      asked <= 1'b0;
    end else begin
      if (list_ar_take || burst_fire) ar_valid <= 1'b1;
      else if (ar_ready) ar_valid <= 1'b0;
      bursts <= bursts + 6'(list_ar_take || burst_fire) - 6'(ends_burst);
      bursts_ok <= bursts < 6'd31;  // a cycle late
      // ~len = -(len + 1)
      change <= (burst_fire ? {1'b1, ~burst_len} : 9'd0) + 9'({beat_peeled && beat_freed, beat_peeled ^ beat_freed});
      room <= room + 10'(change);
      asked <= burst_fire;
      fits <= burst_valid && !burst_fire && !asked && room > 10'(burst_len);
    end
    if (list_ar_take) begin
      ar_addr <= {list_ar_beat, 6'd0};
      ar_len <= '0;
    end else if (burst_fire) begin
      ar_addr <= burst_addr;
      ar_len <= burst_len;
    end
  end

  // Data come in the order of addresses, each at least a cycle after its address is taken.
  logic tag_ready;
  logic [5:0] unused_tags_level;
  fifo_late #(
      .WIDTH(1),
      .DEPTH(32)
  ) tags (
      .clk,
      .rst,
      .in_valid(list_ar_take || burst_fire),
      .in_ready(tag_ready),
      .in_data(list_ar_take),
      .out_valid(tag_valid),
      .out_ready(ends_burst),
      .out_data(r_list),
      .level(unused_tags_level)
  );
  assign r_ready = 1'b1;
  assign r_fire = r_valid && r_ready;
  always_ff @(posedge clk) begin
    beat_valid <= r_fire && !r_list && !halt && r_resp == '0 && !rst;
    beat <= r_data;
    if (rst) fault <= FAULT_NONE;
    else if (fault == FAULT_NONE) begin
      if (r_fire && r_resp != '0) fault <= FAULT_CHANNEL;
      else if ((state == CHECK && outside) || (want_out && want_beat >= length_beats)) fault <= FAULT_EXTENT;
    end
  end

  logic unused;
  assign unused = &{1'b0, tag_valid, tag_ready, 1'b0};

  axi_if #(
      .DATA(514)
  ) check_axi (
      .clk,
      .rst,
      .a_valid(ar_valid),
      .a_ready(ar_ready),
      .a_addr(ar_addr),
      .a_len(ar_len),
      .d_valid(r_valid),
      .d_ready(r_ready),
      .d_data({r_resp, r_data}),
      .d_last(r_last),
      .b_valid(1'b0),
      .b_ready(1'b0)
  );
endmodule
