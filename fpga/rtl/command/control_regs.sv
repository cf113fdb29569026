// The card's registers (proto/layout/card.h) behind an AXI-Lite port of 32 bits, and its reset.
//
// Streams: AXI-Lite, one read and one write at a time. A write counts when all of its strobes are set. What is no
// register reads 0 and ignores writes. Bits without a use are not kept: the low 6 of addresses, those above 1 of
// Enable and Poll, above 24 of MaxK, above 16 of Period. Await reads 0. While a queue is enabled only Enable and Head of it change;
// bit 1 of Enable reads 1 when the queue is stopped by a head out of bounds (queue_poller).
// Reading the low half of a counter keeps its high half for the read that follows. Interrupts: interrupt_unit.
// Reset: `stop` is set until nothing is open, then `core_rst` for 512 cycles, in which registers are cleared and the
// port waits. The same follows `rst`. Latency: a read 6 cycles, a write 4: it is held, decoded and done before its
// response.
module control_regs
  import mnemo_pkg::*;
  import command_types::*;
#(
    parameter int CHANNELS = 2,
    parameter int G = 4,
    parameter int S = 16,
    parameter int BANK_WORDS = 4096,
    parameter int N_QUEUES = 8
) (
    input  logic                       clk,
    input  logic                       rst,
    input  logic                       s_awvalid,
    output logic                       s_awready,
    input  logic        [        12:0] s_awaddr,
    input  logic                       s_wvalid,
    output logic                       s_wready,
    input  logic        [        31:0] s_wdata,
    input  logic        [         3:0] s_wstrb,
    output logic                       s_bvalid,
    input  logic                       s_bready,
    output logic        [         1:0] s_bresp,
    input  logic                       s_arvalid,
    output logic                       s_arready,
    input  logic        [        12:0] s_araddr,
    output logic                       s_rvalid,
    input  logic                       s_rready,
    output logic        [        31:0] s_rdata,
    output logic        [         1:0] s_rresp,
    input  logic                       open,          // a transaction of lanes or host memory
    input  logic                       idle,
    input  logic                       quiesced,      // nor is a transaction open or wanted
    input  logic                       failed,
    input  logic        [        31:0] failure,
    input  logic        [N_QUEUES-1:0] broken,
    input  logic                       opened,        // a queue begins: its number
    input  logic        [         2:0] opened_number,
    input  logic        [        31:0] first_head,    // of the completions of queue 0
    input  logic        [   8:0][63:0] counters,      // in the order of CardCounter
    output logic                       lane_read,     // a lane's counter: channel * 8 + its number
    output logic        [         7:0] lane_read_at,
    input  logic                       lane_value_valid,
    input  logic        [        63:0] lane_value,
    output logic                       irq,
    output logic                       core_rst,
    output logic                       resetting,
    output logic                       run,
    output logic                       quiesce,
    output logic        [        31:0] watchdog_limit,
    output logic        [        15:0] cycle_period,
    output queue_t      [N_QUEUES-1:0] queues,
    output logic        [CHANNELS-1:0][33:0] base_beat,
    output logic        [CHANNELS-1:0][31:0] length_beats
);
  localparam logic [31:0] SHAPE = {8'b0, 8'(S), 8'(G), 8'(CHANNELS)};
  localparam logic [31:0] SCORE_OPS = {
    8'd1,
    8'((1 << SELECT_TOP_K) | (1 << SELECT_THRESHOLD) | (1 << SELECT_WEIGHTED_SUM) | (1 << SELECT_LATEST)),
    8'((1 << GROUP_NONE) | (1 << GROUP_MAX) | (1 << GROUP_EXP2_SUM) | (1 << GROUP_PLAIN_MAX)),
    8'((1 << SCORE_DOT) | (1 << SCORE_RELU_DOT) | (1 << SCORE_PAGE_BOUND) | (1 << SCORE_BLOCK_MEAN))
  };
  localparam logic [31:0] FORMATS = 32'h3E;  // 1 to 5
  localparam logic [31:0] DIMS = 32'h1F0;  // 2^4 to 2^8
  localparam logic [31:0] MAX_GROUP_AND_K = {16'd16384, (16 * G < 64) ? 16'(16 * G) : 16'd64};

  // Reset.
  typedef enum logic [1:0] {
    WORKING,
    CLOSING,
    CLEARING
  } phase_t;
  phase_t phase;
  logic [8:0] clear_at;
  logic [3:0] closed;  // cycles in which nothing was open
  logic write, reset_asked;

  assign resetting = phase != WORKING;

  always_ff @(posedge clk) begin
    core_rst <= rst || phase == CLEARING;
    if (rst) begin
      phase    <= CLEARING;
      clear_at <= '0;
    end else begin
      unique case (phase)
        WORKING: if (reset_asked) phase <= CLOSING;
        CLOSING: if (closed == '1) phase <= CLEARING;
        default: begin
          clear_at <= clear_at + 1'b1;
          if (clear_at == '1) phase <= WORKING;
        end
      endcase
    end
    closed <= (phase != CLOSING || open) ? '0 : closed + 4'd1;
  end

  // Writes: address and data are taken together. `held`, then `write`: their cycles.
  localparam int WORDS = $bits(queue_t) / 32;
  logic accept, whole, held, answered;
  logic [11:0] held_at, write_at;
  logic [31:0] held_data, data, kept;
  logic [3:0] number;
  logic [4:0] word;
  logic queue_held, channel_held, queue_write, channel_write;
  logic [N_QUEUES-1:0] of_queue;  // the decoded write, where it is one of a queue
  logic [WORDS-1:0] of_word;
  logic [CHANNELS-1:0] of_channel;

  assign s_awready = accept;
  assign s_wready  = accept;
  assign s_bresp   = 2'b00;
  assign s_rresp   = 2'b00;
  assign number    = {1'b0, held_at[9:7]};
  assign word      = held_at[6:2];

  always_ff @(posedge clk) begin
    if (rst) begin
      accept   <= 1'b0;
      held     <= 1'b0;
      answered <= 1'b0;
      s_bvalid <= 1'b0;
    end else begin
      accept   <= s_awvalid && s_wvalid && !accept && !held && !answered && !s_bvalid && phase != CLEARING;
      held     <= accept;
      answered <= held;
      if (answered) s_bvalid <= 1'b1;
      else if (s_bready) s_bvalid <= 1'b0;
    end
    if (accept) begin
      whole     <= s_wstrb == '1 && !s_awaddr[12];
      held_at   <= s_awaddr[11:0];
      held_data <= s_wdata;
    end
  end

  // The bits of a queue's words that are kept.
  always_comb begin
    unique case ({
      word, 2'b00
    })
      CARD_QUEUE_ENABLE, CARD_QUEUE_POLL: kept = 32'h0000_0001;
      CARD_QUEUE_RING, CARD_QUEUE_COMPLETIONS, CARD_QUEUE_REGION0, CARD_QUEUE_REGION1, CARD_QUEUE_TABLE:
      kept = 32'hFFFF_FFC0;
      CARD_QUEUE_MAX_K: kept = 32'h00FF_FFFF;
      default: kept = 32'hFFFF_FFFF;
    endcase
    queue_held = 1'b0;
    for (int q = 0; q < N_QUEUES; q++) begin
      if (number == 4'(q)) begin
        queue_held = held && whole && held_at[11:10] == 2'b01 && {word, 2'b00} <= CARD_QUEUE_MAX_K &&
            (!queues[q].enable[0] || word <= 5'd1);
      end
    end
    channel_held = held && whole && held_at[11:8] == 4'h1 && held_at[7:3] <= 5'(CHANNELS - 1);
  end

  always_ff @(posedge clk) begin
    write         <= held && whole && !rst;
    write_at      <= held_at;
    data          <= (held_at[11:10] == 2'b01) ? held_data & kept : held_data;
    queue_write   <= queue_held && !rst;
    channel_write <= channel_held && !rst;
    for (int q = 0; q < N_QUEUES; q++) of_queue[q] <= queue_held && number == 4'(q) && !rst;
    for (int w = 0; w < WORDS; w++) of_word[w] <= word == 5'(w);
    for (int c = 0; c < CHANNELS; c++) of_channel[c] <= channel_held && held_at[7:3] == 5'(c) && !rst;
  end
  assign reset_asked = write && write_at == CARD_REG_CONTROL[11:0] && data[2];

  always_ff @(posedge clk) begin
    if (core_rst) begin
      queues         <= '0;
      base_beat      <= '0;
      length_beats   <= '0;
      run            <= 1'b0;
      quiesce        <= 1'b0;
      watchdog_limit <= '0;
      cycle_period   <= '0;
    end else begin
      for (int q = 0; q < N_QUEUES; q++) begin
        if (of_queue[q]) begin
          for (int w = 0; w < WORDS; w++) if (of_word[w]) queues[q][32*w+:32] <= data;
        end
      end
      for (int c = 0; c < CHANNELS; c++) begin
        if (of_channel[c]) begin
          if (write_at[2]) length_beats[c] <= data;
          else base_beat[c] <= {2'b0, data};
        end
      end
      if (write) begin
        unique case (write_at)
          CARD_REG_CONTROL[11:0]: {quiesce, run} <= data[1:0];
          CARD_REG_WATCHDOG[11:0]: watchdog_limit <= data;
          CARD_REG_PERIOD[11:0]: cycle_period <= data[15:0];
          default: ;
        endcase
      end
    end
  end

  logic interrupts_used;
  logic [1:0] interrupt_enable, interrupt_status;
  interrupt_unit interrupts (
      .clk,
      .rst(core_rst),
      .write,
      .write_at,
      .data,
      .queue_enabled(queues[0].enable[0]),
      .queue_opened(opened && opened_number == '0),
      .head(first_head),
      .failed,
      .used(interrupts_used),
      .enable(interrupt_enable),
      .status(interrupt_status),
      .irq
  );

  /* verilator lint_off UNUSEDSIGNAL */  // registers are words
  logic [12:0] read_at;
  /* verilator lint_on UNUSEDSIGNAL */
  // Words of channels and queues for reads.
  logic [31:0] stored;
  ram_block #(
      .WIDTH(32),
      .DEPTH(512)
  ) store (
      .clk,
      .we(phase == CLEARING || queue_write || channel_write),
      .waddr((phase == CLEARING) ? clear_at : write_at[10:2]),
      .wdata((phase == CLEARING) ? 32'd0 : data),
      .re(1'b1),
      .raddr(read_at[10:2]),
      .rdata(stored)
  );

  // Reads: address, lookup (and a lane's counter), value.
  typedef enum logic [2:0] {
    NONE,
    ADDRESS,
    LOOKUP,
    LANE,
    VALUE,
    ANSWER
  } read_t;
  read_t reading;
  logic [31:0] fixed, fixed_q, kept_high;
  logic [63:0] counter;
  logic [9:0] kept_of;  // the counter whose high half is kept
  logic in_words, in_counters, in_lanes, stopped;
  logic of_words, of_counters, keeps, stops;  // of the read, a cycle after its address; keeps: its high half is kept
  logic [CARD_COUNTERS-1:0] asked;  // the card's counter that is read
  logic [63:0] selected;

  assign in_words = read_at[12:8] == 5'h01 || read_at[12:10] == 3'b001;
  assign in_counters = read_at[12:9] == 4'b0001;
  assign in_lanes = read_at[12:11] == 2'b01;
  assign s_arready = reading == NONE && phase != CLEARING && !rst;
  assign s_rvalid = reading == ANSWER;
  assign lane_read = reading == ADDRESS && in_lanes && !core_rst;
  assign lane_read_at = read_at[10:3];

  always_comb begin
    selected = '0;
    for (int i = 0; i < CARD_COUNTERS; i++) selected = selected | (asked[i] ? counters[i] : 64'd0);
    unique case ({
      read_at[12:2], 2'b00
    })
      CARD_REG_INTERRUPT_GLOBAL: fixed = {31'b0, interrupts_used};
      CARD_REG_INTERRUPT_ENABLE: fixed = {30'b0, interrupt_enable};
      CARD_REG_INTERRUPT_STATUS: fixed = {30'b0, interrupt_status};
      CARD_REG_MAGIC: fixed = CARD_MAGIC;
      CARD_REG_VERSION: fixed = {16'(CARD_MAJOR), 16'(CARD_MINOR)};
      CARD_REG_CARD_HASH: fixed = CARD_HASH[31:0];
      CARD_REG_CARD_HASH + 13'd4: fixed = CARD_HASH[63:32];
      CARD_REG_LAYOUT_HASH: fixed = LAYOUT_HASH[31:0];
      CARD_REG_LAYOUT_HASH + 13'd4: fixed = LAYOUT_HASH[63:32];
      CARD_REG_SHAPE: fixed = SHAPE;
      CARD_REG_BANK_WORDS: fixed = 32'(BANK_WORDS);
      CARD_REG_SCORE_OPS: fixed = SCORE_OPS;
      CARD_REG_FORMATS: fixed = FORMATS;
      CARD_REG_DIMS: fixed = DIMS;
      CARD_REG_MAX_GROUP: fixed = MAX_GROUP_AND_K;
      CARD_REG_CONTROL: fixed = {29'b0, resetting, quiesce, run};
      CARD_REG_STATE: fixed = {29'b0, failed, quiesced, idle};
      CARD_REG_WATCHDOG: fixed = watchdog_limit;
      CARD_REG_FAILURE: fixed = failure;
      CARD_REG_PERIOD: fixed = {16'b0, cycle_period};
      default: fixed = '0;
    endcase
    stopped = 1'b0;
    for (int q = 0; q < N_QUEUES; q++)
    if (in_words && read_at[10] && read_at[6:2] == '0 && read_at[9:7] == 3'(q)) stopped = broken[q];
  end

  always_ff @(posedge clk) begin
    if (rst) begin
      reading <= NONE;
      kept_of <= '1;
    end else begin
      unique case (reading)
        NONE: if (s_arvalid && s_arready) reading <= ADDRESS;
        ADDRESS: reading <= (in_lanes && !core_rst) ? LANE : LOOKUP;
        LOOKUP: reading <= VALUE;
        LANE: if (lane_value_valid || core_rst) reading <= VALUE;
        VALUE: reading <= ANSWER;
        default: if (s_rready) reading <= NONE;
      endcase
      if (core_rst) kept_of <= '1;
      else if (reading == VALUE && of_counters && !read_at[2]) kept_of <= read_at[12:3];
    end
    if (reading == NONE) read_at <= s_araddr;
    fixed_q <= fixed;
    of_words <= in_words;
    of_counters <= in_counters || in_lanes;
    keeps <= kept_of == read_at[12:3];
    stops <= stopped;
    if (reading == ADDRESS) counter <= '0;
    for (int i = 0; i < CARD_COUNTERS; i++) asked[i] <= in_counters && read_at[8:3] == 6'(i);
    if (reading == LOOKUP) counter <= selected;
    if (reading == LANE && lane_value_valid) counter <= lane_value;
    if (reading == VALUE) begin
      if (of_counters) begin
        if (!read_at[2]) begin
          s_rdata   <= counter[31:0];
          kept_high <= counter[63:32];
        end else s_rdata <= keeps ? kept_high : counter[63:32];
      end else s_rdata <= of_words ? stored | {30'b0, stops, 1'b0} : fixed_q;
    end
  end
endmodule
