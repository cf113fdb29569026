// Reads the heads of polled queues from their rings' headers (proto/layout/ring.h), beside queue_poller, which takes
// descriptors meanwhile.
//
// One read at a time, POLL_CYCLES at least apart, round robin over the queues that want one. Stream out: a queue and
// its head, for one cycle, without a stall; none when the queue was not `active` all the time. `run` low: nothing is
// read anew. Latency: a read. Stalls: host memory.
module head_poller
  import mnemo_pkg::*;
  import command_types::*;
#(
    parameter int N_QUEUES = 8,
    parameter int POLL_CYCLES = 64
) (
    input  logic clk,
    input  logic rst,
    input  logic run,
    input  logic [N_QUEUES-1:0] active,
    input  logic [N_QUEUES-1:0] want,
    input  logic [N_QUEUES-1:0][63:0] rings,
    output logic busy,   // a read is under way
    output logic read_valid,
    input  logic read_ready,
    output host_read_t read,
    input  logic beat_valid,
    output logic beat_ready,
    input  logic [31:0] beat,
    output logic head_valid,
    output logic [2:0] head_at,
    output logic [31:0] head
);
  localparam int AT = (N_QUEUES > 1) ? $clog2(N_QUEUES) : 1;
  localparam logic [AT-1:0] LAST = AT'(N_QUEUES - 1);

  logic [AT-1:0] at;
  logic stale;
  logic [$clog2(POLL_CYCLES):0] wait_cycles;

  assign beat_ready = 1'b1;  // a beat comes for the read under way alone

  always_ff @(posedge clk) begin
    head_valid <= 1'b0;
    head_at    <= 3'(at);
    head       <= beat;
    stale      <= busy && (stale || !active[at]);
    if (wait_cycles != '0) wait_cycles <= wait_cycles - 1'b1;
    if (busy) begin
      if (read_ready) read_valid <= 1'b0;
      if (beat_valid) begin
        busy       <= 1'b0;
        head_valid <= active[at] && !stale;
        at         <= (at == LAST) ? '0 : at + 1'b1;
      end
    end else if (wait_cycles == '0) begin
      if (run && want[at]) begin
        busy         <= 1'b1;
        read_valid   <= 1'b1;
        read.address <= rings[at] + 64'(RING_AT_HEAD);
        wait_cycles  <= ($clog2(POLL_CYCLES) + 1)'(POLL_CYCLES);
      end else begin
        at <= (at == LAST) ? '0 : at + 1'b1;
      end
    end
    read.beats <= 24'd1;
    if (rst) begin
      at          <= '0;
      busy        <= 1'b0;
      read_valid  <= 1'b0;
      head_valid  <= 1'b0;
      wait_cycles <= '0;
    end
  end
endmodule
