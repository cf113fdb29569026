// The counters of the command processor: those of the card (CardCounter) in registers, those of lanes
// (CardLaneCounter) in a counter_bank, one read at a time.
//
// Latency: a card's counter is at most 4 cycles behind; a lane's is read 5 cycles after `lane_read`. Nothing stalls.
module command_counters
  import mnemo_pkg::*;
#(
    parameter int CHANNELS = 2
) (
    input  logic                clk,
    input  logic                core_rst,
    input  logic                working,
    input  logic                taken,
    input  logic                refused,
    input  logic                job_ended,
    input  logic                results_stall,
    input  logic                reader_beat,
    input  logic [         4:0] writer_words,
    input  logic [        31:0] depth,
    input  logic [CHANNELS-1:0] ev_beat,
    input  logic [CHANNELS-1:0] ev_stall_memory,
    input  logic [CHANNELS-1:0] ev_stall_tables,
    input  logic [CHANNELS-1:0] ev_stall_scorers,
    input  logic [CHANNELS-1:0] ev_stall_bank,
    input  logic [CHANNELS-1:0] ev_busy,
    output logic [   8:0][63:0] counters,
    input  logic                lane_read,
    input  logic [         7:0] lane_read_at,
    output logic                lane_value_valid,
    output logic [        63:0] lane_value
);
  localparam int SLOTS = (CHANNELS * 8 < 16) ? 16 : CHANNELS * 8;  // of lane counters

  counter #(
      .WIDTH(64)
  ) cycles_total (
      .clk,
      .rst(core_rst),
      .event_valid(1'b1),
      .value(counters[CARD_CYCLES_TOTAL])
  );
  counter #(
      .WIDTH(64)
  ) cycles_busy (
      .clk,
      .rst(core_rst),
      .event_valid(working),
      .value(counters[CARD_CYCLES_BUSY])
  );
  counter #(
      .WIDTH(64)
  ) descriptors (
      .clk,
      .rst(core_rst),
      .event_valid(taken),
      .value(counters[CARD_DESCRIPTORS])
  );
  counter #(
      .WIDTH(64)
  ) refusals (
      .clk,
      .rst(core_rst),
      .event_valid(refused),
      .value(counters[CARD_REFUSED])
  );
  counter #(
      .WIDTH(64)
  ) jobs (
      .clk,
      .rst(core_rst),
      .event_valid(job_ended),
      .value(counters[CARD_JOBS])
  );
  counter #(
      .WIDTH(64)
  ) stalls (
      .clk,
      .rst(core_rst),
      .event_valid(results_stall),
      .value(counters[CARD_STALL_RESULTS])
  );
  assign counters[CARD_QUEUE_DEPTH] = {32'b0, depth};

  logic [57:0] beats_read;
  logic [61:0] words_written;
  counter #(
      .WIDTH(58)
  ) host_beats (
      .clk,
      .rst(core_rst),
      .event_valid(reader_beat),
      .value(beats_read)
  );
  always_ff @(posedge clk) begin
    if (core_rst) words_written <= '0;
    else words_written <= words_written + 62'(writer_words);
  end
  assign counters[CARD_HOST_BYTES_READ] = {beats_read, 6'b0};
  assign counters[CARD_HOST_BYTES_WRITTEN] = {words_written, 2'b0};

  logic [SLOTS-1:0] lane_events;
  always_comb begin
    lane_events = '0;
    for (int c = 0; c < CHANNELS; c++)
    lane_events[8*c+:6] = {
      ev_busy[c], ev_stall_bank[c], ev_stall_scorers[c], ev_stall_tables[c], ev_stall_memory[c], ev_beat[c]
    };
  end

  logic lane_read_inside;
  assign lane_read_inside = 9'(lane_read_at) < 9'(SLOTS);
  logic bank_read, outside_read;
  logic [$clog2(SLOTS)-1:0] bank_read_at;
  always_ff @(posedge clk) begin
    bank_read    <= lane_read && lane_read_inside;
    outside_read <= lane_read && !lane_read_inside;
    bank_read_at <= lane_read_at[$clog2(SLOTS)-1:0];
  end
  logic lane_value_in_bank;
  logic [63:0] bank_value;
  counter_bank #(
      .COUNT(SLOTS)
  ) bank (
      .clk,
      .rst(core_rst),
      .events(lane_events),
      .read(bank_read),
      .read_at(bank_read_at),
      .value_valid(lane_value_in_bank),
      .value(bank_value)
  );
  always_ff @(posedge clk) begin
    lane_value_valid <= lane_value_in_bank || outside_read;
    lane_value       <= lane_value_in_bank ? bank_value : '0;
  end
endmodule
