// The command processor: takes descriptors from rings in host memory, makes jobs of them for the lanes and the
// selector, and writes their results and completions.
//
// The way of a descriptor: queue_poller -> index_fetch -> descriptor_check -> job_sequencer -> lanes and selector
// (scan_job, query, select_job) -> result_writer (head, hit) -> completion_writer. Up to CONTEXTS descriptors are
// under way, completed in the order in which they are taken. With all else equal to server/memory_service and
// proto/layout. `rst` is the power-on reset; core_rst that of the lanes and the selector, and of all here but the
// registers' port. `stop` tells lanes to start nothing new: in a reset, until no transaction is open, and after a
// failure.
module command
  import mnemo_pkg::*;
  import card_types::*;
  import command_types::*;
#(
    parameter int CHANNELS = 2,
    parameter int G = 4,
    parameter int S = 16,
    parameter int BANK_WORDS = 4096,
    parameter int N_QUEUES = 8
) (
    input  logic                             clk,
    input  logic                             rst,
    input  logic                             s_awvalid,
    output logic                             s_awready,
    input  logic        [        12:0]       s_awaddr,
    input  logic                             s_wvalid,
    output logic                             s_wready,
    input  logic        [        31:0]       s_wdata,
    input  logic        [         3:0]       s_wstrb,
    output logic                             s_bvalid,
    input  logic                             s_bready,
    output logic        [         1:0]       s_bresp,
    input  logic                             s_arvalid,
    output logic                             s_arready,
    input  logic        [        12:0]       s_araddr,
    output logic                             s_rvalid,
    input  logic                             s_rready,
    output logic        [        31:0]       s_rdata,
    output logic        [         1:0]       s_rresp,
    output logic                             irq,
    output logic                             ar_valid,
    input  logic                             ar_ready,
    output logic        [        63:0]       ar_addr,
    output logic        [         7:0]       ar_len,
    input  logic                             r_valid,
    output logic                             r_ready,
    input  logic        [       511:0]       r_data,
    input  logic        [         1:0]       r_resp,
    input  logic                             r_last,
    output logic                             aw_valid,
    input  logic                             aw_ready,
    output logic        [        63:0]       aw_addr,
    output logic        [         7:0]       aw_len,
    output logic                             w_valid,
    input  logic                             w_ready,
    output logic        [       511:0]       w_data,
    output logic        [        63:0]       w_strb,
    output logic                             w_last,
    input  logic                             b_valid,
    output logic                             b_ready,
    input  logic        [         1:0]       b_resp,
    output logic                             scan_valid,
    input  logic                             scan_ready,
    output scan_job_t                        scan_job,
    output logic                             query_valid,
    input  logic                             query_ready,
    output query_head_t                      query_head,
    output logic        [       511:0]       query_data,
    input  logic                             octave_valid,
    output logic                             octave_ready,
    input  logic        [         4:0]       octave,
    output logic                             select_valid,
    input  logic                             select_ready,
    output select_job_t                      select_job,
    input  logic                             head_valid,
    output logic                             head_ready,
    input  hit_head_t                        head,
    input  logic                             hit_valid,
    output logic                             hit_ready,
    input  hit_beat_t                        hit_beat,
    input  logic        [       511:0]       hit_ids,
    input  logic        [       511:0]       hit_ranks,
    output logic                             core_rst,
    output logic                             stop,
    input  logic        [CHANNELS-1:0]       open,
    input  fault_t      [CHANNELS-1:0]       fault,
    input  logic        [CHANNELS-1:0]       ev_beat,
    input  logic        [CHANNELS-1:0]       ev_stall_memory,
    input  logic        [CHANNELS-1:0]       ev_stall_tables,
    input  logic        [CHANNELS-1:0]       ev_stall_scorers,
    input  logic        [CHANNELS-1:0]       ev_stall_bank,
    input  logic        [CHANNELS-1:0]       ev_busy,
    output logic        [CHANNELS-1:0][33:0] base_beat,
    output logic        [CHANNELS-1:0][31:0] length_beats,
    output logic        [        31:0]       cycle
);
  localparam int CONTEXTS = 8;
  localparam int READERS = 4;  // poller, index, queries, polled heads
  localparam int WRITERS = 3;  // tails, results, completions

  // Registers.
  queue_t [N_QUEUES-1:0] queues;
  logic [N_QUEUES-1:0] broken;
  logic [8:0][63:0] counters;
  logic lane_read, lane_value_valid, resetting, run, quiesce, idle, quiesced, failed, any_open;
  logic [7:0] lane_read_at;
  logic [63:0] lane_value;
  logic [31:0] failure, watchdog_limit;
  logic [15:0] cycle_period;
  logic reader_open, reader_error, reader_beat, writer_open, writer_error;
  logic [4:0] writer_words;
  logic opened;
  logic [2:0] opened_number;
  logic [31:0] opened_head, first_head;

  control_regs #(
      .CHANNELS(CHANNELS),
      .G(G),
      .S(S),
      .BANK_WORDS(BANK_WORDS),
      .N_QUEUES(N_QUEUES)
  ) registers (
      .open(any_open),
      .*
  );

  always_ff @(posedge clk) stop <= resetting || failed;

  // Descriptors on their way to the sequencer.
  logic poller_busy, poller_reading, poller_pending, taken_valid, taken_ready, fetched_valid, fetched_ready;
  logic [31:0] depth;
  taken_t taken;
  fetched_t fetched;
  logic early_valid;
  host_read_t early;
  logic verdict_valid, verdict_ready;
  logic [15:0] status, detail;
  block_units_t block;

  logic [READERS-1:0] run_valid, run_ready, beat_valid, beat_ready;
  host_read_t [READERS-1:0] runs;
  logic [511:0] beat;
  logic [WRITERS-1:0] write_valid, write_ready;
  /* verilator lint_off UNUSEDSIGNAL */  // nobody waits for a tail
  logic [WRITERS-1:0] written;
  /* verilator lint_on UNUSEDSIGNAL */
  host_write_t [WRITERS-1:0] writes;

  queue_poller #(
      .N_QUEUES(N_QUEUES)
  ) poller (
      .clk,
      .rst(core_rst),
      .run(run && !quiesce && !stop),
      .quiet(quiesce || stop),
      .cycle,
      .queues,
      .broken,
      .depth,
      .busy(poller_busy),
      .reading(poller_reading),
      .pending(poller_pending),
      .opened,
      .opened_number,
      .opened_head,
      .read_valid({run_valid[3], run_valid[0]}),
      .read_ready({run_ready[3], run_ready[0]}),
      .read({runs[3], runs[0]}),
      .beat_valid({beat_valid[3], beat_valid[0]}),
      .beat_ready({beat_ready[3], beat_ready[0]}),
      .beat,
      .write_valid(write_valid[0]),
      .write_ready(write_ready[0]),
      .write(writes[0]),
      .taken_valid,
      .taken_ready,
      .taken
  );

  index_fetch fetch (
      .rst(core_rst),
      .read_valid(run_valid[1]),
      .read_ready(run_ready[1]),
      .read(runs[1]),
      .beat_valid(beat_valid[1]),
      .beat_ready(beat_ready[1]),
      .*
  );

  descriptor_check #(
      .CHANNELS(CHANNELS),
      .G(G),
      .BANK_WORDS(BANK_WORDS)
  ) check (
      .clk,
      .rst(core_rst),
      .fetched_valid,
      .fetched_ready,
      .fetched,
      .verdict_valid,
      .verdict_ready,
      .status,
      .detail,
      .block
  );

  // Jobs.
  logic sequencer_busy, job_issued, job_ended, context_in_valid, context_in_ready, context_valid, context_ready;
  context_t context_in, context_out;
  logic [$clog2(CONTEXTS):0] contexts_level;
  logic load_valid, load_ready, early_refused;
  load_t load;
  assign early_refused = verdict_valid && verdict_ready && status != STATUS_OK;

  job_sequencer #(
      .G(G)
  ) sequencer (
      .clk,
      .rst(core_rst),
      .cycle,
      .ev_job(job_issued),
      .busy(sequencer_busy),
      .fetched_valid(verdict_valid),
      .fetched_ready(verdict_ready),
      .fetched,
      .status,
      .detail,
      .block,
      .context_valid(context_in_valid),
      .context_ready(context_in_ready),
      .context_out(context_in),
      .scan_valid,
      .scan_ready,
      .scan_job,
      .select_valid,
      .select_ready,
      .select_job,
      .load_valid,
      .load_ready,
      .load
  );

  fifo_late #(
      .WIDTH($bits(context_t)),
      .DEPTH(CONTEXTS)
  ) contexts (
      .clk,
      .rst(core_rst),
      .in_valid(context_in_valid),
      .in_ready(context_in_ready),
      .in_data(context_in),
      .out_valid(context_valid),
      .out_ready(context_ready),
      .out_data(context_out),
      .level(contexts_level)
  );

  query_loader loader (
      .rst(core_rst),
      .read_valid(run_valid[2]),
      .read_ready(run_ready[2]),
      .read(runs[2]),
      .beat_valid(beat_valid[2]),
      .beat_ready(beat_ready[2]),
      .*
  );

  // Answers.
  logic results_busy, results_stall, completions_busy, refused, finished_valid, finished_ready, responded;
  finished_t finished;

  result_path results (
      .clk,
      .rst(core_rst),
      .busy(results_busy),
      .ev_job(job_ended),
      .ev_stall(results_stall),
      .context_valid,
      .context_ready,
      .context_in(context_out),
      .head_valid,
      .head_ready,
      .head,
      .hit_valid,
      .hit_ready,
      .hit_beat,
      .hit_ids,
      .hit_ranks,
      .write_valid(write_valid[1]),
      .write_ready(write_ready[1]),
      .write(writes[1]),
      .written(written[1]),
      .finished_valid,
      .finished_ready,
      .finished,
      .responded
  );

  completion_writer #(
      .N_QUEUES(N_QUEUES)
  ) completions (
      .clk,
      .rst(core_rst),
      .busy(completions_busy),
      .ev_refused(refused),
      .first_head,
      .cycle,
      .cycle_period,
      .queues,
      .opened,
      .opened_number,
      .opened_head,
      .finished_valid,
      .finished_ready,
      .finished,
      .responded,
      .write_valid(write_valid[2]),
      .write_ready(write_ready[2]),
      .write(writes[2]),
      .written(written[2])
  );

  // Host memory.
  host_reader #(
      .MASTERS(READERS)
  ) reader (
      .rst(core_rst),
      .open(reader_open),
      .error(reader_error),
      .ev_beat(reader_beat),
      .run(runs),
      .*
  );

  host_writer #(
      .MASTERS(WRITERS)
  ) writer (
      .clk,
      .rst(core_rst),
      .stop,
      .open(writer_open),
      .error(writer_error),
      .ev_words(writer_words),
      .write_valid,
      .write_ready,
      .write(writes),
      .done(written),
      .aw_valid,
      .aw_ready,
      .aw_addr,
      .aw_len,
      .w_valid,
      .w_ready,
      .w_data,
      .w_strb,
      .w_last,
      .b_valid,
      .b_ready,
      .b_resp
  );

  // State.
  logic working;
  watchdog #(
      .CHANNELS(CHANNELS)
  ) dog (
      .clk,
      .rst(core_rst),
      .limit(watchdog_limit),
      .job_issued,
      .job_ended,
      .host_error(reader_error || writer_error),
      .fault,
      .working,
      .failed,
      .failure
  );

  always_ff @(posedge clk) begin
    any_open <= open != '0 || reader_open || writer_open;
    idle <= !(poller_busy || taken_valid || fetched_valid || !taken_ready || sequencer_busy || contexts_level != '0 ||
        results_busy || finished_valid || completions_busy || working || writer_open ||
        (poller_pending && run && !quiesce));
    quiesced <= quiesce && idle && !any_open && !poller_reading;
    if (core_rst) cycle <= '0;
    else cycle <= cycle + 32'd1;
  end

  command_counters #(
      .CHANNELS(CHANNELS)
  ) counting (
      .taken(taken_valid && taken_ready),
      .*
  );
endmodule
