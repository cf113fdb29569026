// Reads query blocks (proto/layout/payload.h) from host memory and cuts them into query beats.
//
// Stream in: a load, the block of one position and head. Stream out: its queries: codes padded with zeros to
// segments of 64, in order; for bounds each segment as min(code, 0), then as max(code, 0) in a segment of its own,
// dim / 64 later; then a beat a query with its QueryParam and the sum of its codes.
// A load of `values` is not read: its queries are unit vectors of elements in their order, with a multiplier of 1, and
// a shift from their octaves to the largest one of the scan before, which it waits for and takes (`octave`). Their y
// is layout::AlignedValue.
// `early` tells of the payload of the next descriptor. A loader with nothing to do reads as many beats of it as the
// latest block had, so that the first load finds them. They are dropped when its block has another length, and with
// `early_refused`: no load comes. One descriptor is told of at a time, before its first load; `sequencer_busy` until all
// loads of the one before it have come.
// Latency: 7 cycles and a read to the first beat; a beat in two cycles then, and 8 cycles before the first param, for the
// sums. Blocks of the next loads are read meanwhile, as far as BEATS hold them: a longer one is read when all before it
// are used up. Stalls: host memory, `query`, `octave`.
module query_loader
  import mnemo_pkg::*;
  import card_types::*;
  import command_types::*;
#(
    parameter int BEATS = 32  // at most 64
) (
    input  logic                clk,
    input  logic                rst,
    input  logic                load_valid,
    output logic                load_ready,
    input  load_t               load,
    input  logic                sequencer_busy,
    input  logic                early_valid,
    input  host_read_t          early,
    input  logic                early_refused,
    output logic                read_valid,
    input  logic                read_ready,
    output host_read_t          read,
    input  logic                beat_valid,
    output logic                beat_ready,
    input  logic        [511:0] beat,
    input  logic                octave_valid,
    output logic                octave_ready,
    input  logic        [  4:0] octave,
    output logic                query_valid,
    input  logic                query_ready,
    output query_head_t         query_head,
    output logic        [511:0] query_data
);
  typedef enum logic [1:0] {
    IDLE,
    CODES,
    DRAIN,
    PARAMS
  } state_t;

  state_t state;
  /* verilator lint_off UNUSEDSIGNAL */  // the read has its address and length
  load_t job;
  /* verilator lint_on UNUSEDSIGNAL */
  logic [511:0] hold, codes;
  logic hold_valid, advance, hold_done, move, upper, last_of_query;
  logic last_query, quarter, half;  // quarter, half: of a beat has a query's codes, the rest those of the next ones
  logic [5:0] query;
  logic [2:0] segment, segments_last, slot;  // slot: of a query within a beat, when a beat has more than one
  logic [2:0] slots_last;
  logic [5:0] before_last;  // the number of the last query but one
  logic [3:0] drain;

  // A run of beats for each load: `owed` are those that were asked for and are not used up. The FIFO holds
  // them all but of a longer block, so that other masters' beats do not wait for queries in use.
  localparam int LOADS = 4;
  logic [23:0] owed, less;  // less: the latest load's beats but one
  logic fits, added;
  logic loads_room, next_valid, next_ready, held_valid, held_ready;
  load_t next;
  logic [511:0] held;
  /* verilator lint_off UNUSEDSIGNAL */  // `owed` tells
  logic [$clog2(LOADS):0] loads_level;
  logic [$clog2(BEATS):0] beats_level;
  /* verilator lint_on UNUSEDSIGNAL */
  // Beats that were asked for before their load: 0, none. They are the only ones that are owed.
  logic [6:0] early_left, latest_beats;
  logic idle, waits, dropping, early_fits, early_meant;  // early_meant: by the load that stands
  wire take_load = load_valid && load_ready;
  wire take_beat = held_valid && held_ready;
  logic took;  // a beat, in the cycle before
  wire take_early = early_valid && idle && early_fits;
  assign load_ready = fits && loads_room && !read_valid;
  assign next_ready = state == IDLE;

  fifo #(
      .WIDTH($bits(load_t)),
      .DEPTH(LOADS)
  ) loads (
      .clk,
      .rst,
      .in_valid (take_load),
      .in_ready (loads_room),
      .in_data  (load),
      .out_valid(next_valid),
      .out_ready(next_ready),
      .out_data (next),
      .level    (loads_level)
  );

  fifo_late #(
      .WIDTH(512),
      .DEPTH(BEATS)
  ) beats (
      .clk,
      .rst,
      .in_valid (beat_valid),
      .in_ready (beat_ready),
      .in_data  (beat),
      .out_valid(held_valid),
      .out_ready(held_ready),
      .out_data (held),
      .level    (beats_level)
  );

  always_ff @(posedge clk) begin
    // A load stands until it is taken, and meanwhile beats are used up alone: what fits goes on fitting. `owed` has a
    // load's beats a cycle after it, before the first of them comes; a beat leaves it a cycle after its use.
    fits <= !rst && load_valid && !take_load && !added && (early_left != '0 ? early_meant : owed == '0 ||
        (owed[23:6] == '0 && load.beats[23:6] == '0 && 7'(owed[5:0]) + 7'(load.beats[5:0]) <= 7'(BEATS)));
    added <= !rst && ((take_load && early_left == '0) || take_early);
    less <= (take_early ? 24'(latest_beats) : load.beats) - 24'd1;
    if (rst) owed <= '0;
    else if (added) owed <= owed + (took ? less : read.beats);
    else owed <= owed - 24'(took);
    took <= !rst && take_beat;
  end

  always_ff @(posedge clk) begin
    idle <= !rst && owed == '0 && !added && !take_early && !load_valid && !sequencer_busy;
    early_fits <= 24'(latest_beats) <= early.beats && latest_beats != '0;
    early_meant <= load_valid && !dropping && load.beats == 24'(early_left);
    if (take_load && !load.values) latest_beats <= (load.beats <= 24'(BEATS)) ? load.beats[6:0] : '0;
    if (take_early) early_left <= latest_beats;
    else if (take_load) early_left <= '0;
    else if (dropping && take_beat) early_left <= early_left - 1'b1;
    if (early_left == '0 || (early_left == 7'd1 && take_beat)) dropping <= 1'b0;
    else if (early_refused || (waits && !early_meant)) dropping <= 1'b1;
    waits <= load_valid && !take_load;
    if (rst) begin
      early_left   <= '0;
      latest_beats <= '0;
      dropping     <= 1'b0;
    end
  end

  logic [64*8-1:0] shifted;

  // Dims of 16 and 32: 4 and 2 queries a beat. Segments of larger dims: dim / 64.
  always_ff @(posedge clk) begin
    unique case (job.dim_log2)
      4'd4: {segments_last, slots_last} <= {3'd0, 3'd3};
      4'd5: {segments_last, slots_last} <= {3'd0, 3'd1};
      4'd7: {segments_last, slots_last} <= {3'd1, 3'd0};
      4'd8: {segments_last, slots_last} <= {3'd3, 3'd0};
      default: {segments_last, slots_last} <= {3'd0, 3'd0};
    endcase
    quarter <= job.dim_log2 == 4'd4;
    before_last <= job.group_last - 6'd1;
    half    <= job.dim_log2 == 4'd4 || job.dim_log2 == 4'd5;
  end
  always_comb begin
    shifted = quarter ? {128'b0, hold[511:128]} : {256'b0, hold[511:256]};
    if (state == PARAMS) shifted = {64'b0, hold[511:64]};
  end

  assign advance = !query_valid || query_ready;
  assign move = hold_valid && advance && (state == CODES || state == PARAMS);
  assign last_of_query = segment == segments_last && (!job.bounds || upper);
  // The held beat is used up with this one.
  assign hold_done = (state == CODES) ? (!job.bounds || upper) && (slot == slots_last || last_query)
                                      : query[2:0] == 3'd7 || last_query;
  assign held_ready = dropping || ((state == CODES || state == PARAMS) && !hold_valid && !job.values);

  // Beats of a load of values: a unit vector's segment, or 8 parameters.
  localparam logic [7:0] NO_SHIFT = 8'd105;  // of octave 0
  wire take_hold = take_beat && !dropping;
  wire take_unit = (state == CODES || state == PARAMS) && !hold_valid && job.values && octave_valid;
  logic [7:0] element;  // of the query, while codes are made
  logic [511:0] unit;
  assign octave_ready = job.values && state == PARAMS && move && last_query;
  always_comb begin
    unit = '0;
    if (state == PARAMS) for (int i = 0; i < 8; i++) unit[64*i+:64] = {40'b0, NO_SHIFT + 8'(octave), 16'd1};
    else for (int i = 0; i < 64; i++) unit[8*i] = element == {segment[1:0], 6'(i)};
  end
  assign codes = {half ? 256'b0 : hold[511:256], quarter ? 128'b0 : hold[255:128], hold[127:0]};

  always_ff @(posedge clk) begin
    if (rst) begin
      state      <= IDLE;
      hold_valid <= 1'b0;
      read_valid <= 1'b0;
    end else begin
      if (read_ready) read_valid <= 1'b0;
      if (take_hold || take_unit) hold_valid <= 1'b1;
      if (move && hold_done) hold_valid <= 1'b0;
      if ((take_load && !load.values && early_left == '0) || take_early) read_valid <= 1'b1;
      unique case (state)
        IDLE: if (next_valid) state <= CODES;
        CODES: if (move && last_of_query && last_query) state <= DRAIN;
        DRAIN: if (drain == '0) state <= PARAMS;
        PARAMS: if (move && last_query) state <= IDLE;
        default: state <= IDLE;
      endcase
    end
    if (state == IDLE) begin
      job     <= next;
      element <= next.element;
    end
    if (take_load || take_early) begin
      read.address <= take_early ? early.address : load.address;
      read.beats   <= take_early ? 24'(latest_beats) : load.beats;
    end
    if (state == IDLE) begin
      query      <= '0;
      last_query <= next.group_last == '0;
      segment <= '0;
      slot    <= '0;
      upper   <= 1'b0;
    end
    drain <= (state == DRAIN) ? drain - 1'b1 : 4'd8;
    if (take_hold || take_unit) hold <= job.values ? unit : held;
    if (move) begin
      if (state == PARAMS) begin
        query      <= query + 1'b1;
        last_query <= query == before_last;
        hold       <= shifted;
      end else if (job.bounds && !upper) upper <= 1'b1;
      else begin
        upper   <= 1'b0;
        segment <= (segment == segments_last) ? '0 : segment + 1'b1;
        if (segment == segments_last) begin
          query      <= last_query ? '0 : query + 1'b1;
          last_query <= last_query ? job.group_last == '0 : query == before_last;
          element    <= element + 1'b1;
          slot  <= (slot == slots_last) ? '0 : slot + 1'b1;
          hold  <= shifted;
        end
      end
    end
  end

  // Sums of codes: 64 in four steps of 4, a step a cycle, then over the segments of a query.
  logic sum_valid, sum_first, sum_last;
  logic [2:0] sum_valids, sum_firsts, sum_lasts;
  logic [2:0][5:0] sum_queries;
  logic signed [15:0][9:0] sums4;
  logic signed [3:0][11:0] sums16;
  logic signed [13:0] sum64;
  logic signed [16:0] sum, total, stored;
  assign sum_valid = move && state == CODES && (!job.bounds || upper);
  assign sum_first = segment == '0;
  assign sum_last  = segment == segments_last;
  assign total     = 17'(sum64) + (sum_firsts[2] ? 17'sd0 : sum);

  always_ff @(posedge clk) begin
    for (int i = 0; i < 16; i++) begin
      sums4[i] <= 10'(signed'(codes[32*i+:8])) + 10'(signed'(codes[32*i+8+:8])) +
                  10'(signed'(codes[32*i+16+:8])) + 10'(signed'(codes[32*i+24+:8]));
    end
    for (int i = 0; i < 4; i++) begin
      sums16[i] <= 12'(signed'(sums4[4*i])) + 12'(signed'(sums4[4*i+1])) + 12'(signed'(sums4[4*i+2])) +
                   12'(signed'(sums4[4*i+3]));
    end
    sum64 <= 14'(signed'(sums16[0])) + 14'(signed'(sums16[1])) + 14'(signed'(sums16[2])) + 14'(signed'(sums16[3]));
    sum_valids  <= rst ? '0 : {sum_valids[1:0], sum_valid};
    sum_firsts  <= {sum_firsts[1:0], sum_first};
    sum_lasts   <= {sum_lasts[1:0], sum_last};
    sum_queries <= {sum_queries[1:0], query};
    if (sum_valids[2]) sum <= total;
  end

  ram_lut #(
      .WIDTH(17),
      .DEPTH(64)
  ) of_queries (
      .clk,
      .we(sum_valids[2] && sum_lasts[2]),
      .waddr(sum_queries[2]),
      .wdata(total),
      .raddr(query),
      .rdata(stored)
  );

  /* verilator lint_off UNUSEDSIGNAL */  // reserved bytes
  query_param_wire_t wire_param;
  /* verilator lint_on UNUSEDSIGNAL */
  query_param_t param;
  assign wire_param = query_param_wire_t'(hold[63:0]);
  assign param = '{
          weight: wire_param.weight,
          sum: stored,
          shift: wire_param.shift,
          multiplier: wire_param.multiplier
      };

  always_ff @(posedge clk) begin
    if (rst) query_valid <= 1'b0;
    else if (advance) query_valid <= move;
    if (advance) begin
      query_head.last     <= state == PARAMS && last_query;
      query_head.is_param <= state == PARAMS;
      query_head.query    <= query;
      query_head.segment  <= (state == PARAMS) ? '0 : upper ? segment + segments_last + 3'd1 : segment;
      if (state == PARAMS) query_data <= 512'(param);
      else
        for (int i = 0; i < 64; i++) query_data[8*i+:8] <= (job.bounds && codes[8*i+7] == upper) ? 8'd0 : codes[8*i+:8];
    end
  end

  stream_if #(
      .WIDTH($bits(query_head_t) + 512)
  ) check_query (
      .clk,
      .rst,
      .valid(query_valid),
      .ready(query_ready),
      .data({query_head, query_data})
  );
endmodule
