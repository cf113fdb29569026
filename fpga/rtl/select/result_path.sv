// The result writer with what it writes: the selector's answers, and those of latest entries.
//
// Streams: those of result_writer. Latency and stalls: result_writer's.
module result_path
  import card_types::*;
  import command_types::*;
(
    input  logic                clk,
    input  logic                rst,
    output logic                busy,
    output logic                ev_job,    // a job ends
    output logic                ev_stall,  // ids wait for host memory
    input  logic                context_valid,
    output logic                context_ready,
    input  context_t            context_in,
    input  logic                head_valid,
    output logic                head_ready,
    input  hit_head_t           head,
    input  logic                hit_valid,
    output logic                hit_ready,
    input  hit_beat_t           hit_beat,
    input  logic        [511:0] hit_ids,
    input  logic        [511:0] hit_ranks,
    output logic                write_valid,
    input  logic                write_ready,
    output host_write_t         write,
    input  logic                written,
    output logic                finished_valid,
    input  logic                finished_ready,
    output finished_t           finished,
    output logic                responded
);
  logic out_head_valid, out_head_ready, out_hit_valid, out_hit_ready;
  hit_head_t out_head;
  hit_beat_t out_hit_beat;
  logic [511:0] out_hit_ids, out_hit_ranks;

  latest_source latest (
      .context_take(context_valid && context_ready),
      .*
  );

  result_writer writer (
      .clk,
      .rst,
      .busy,
      .ev_job,
      .ev_stall,
      .context_valid,
      .context_ready,
      .context_in,
      .head_valid(out_head_valid),
      .head_ready(out_head_ready),
      .head(out_head),
      .hit_valid(out_hit_valid),
      .hit_ready(out_hit_ready),
      .hit_beat(out_hit_beat),
      .hit_ids(out_hit_ids),
      .hit_ranks(out_hit_ranks),
      .write_valid,
      .write_ready,
      .write,
      .written,
      .finished_valid,
      .finished_ready,
      .finished,
      .responded
  );
endmodule
