// head_poller: one read at a time, of a queue that wants it, POLL_CYCLES after the one before; a head is given to the
// queue whose header was read, as it was read, and to none that was inactive meanwhile. A queue that wants a read
// waits for at most N_QUEUES - 1 of others after the one under way, while `run` is high. The memory answers what it was
// asked.
module head_poller_props
  import mnemo_pkg::*;
  import command_types::*;
#(
    parameter int N_QUEUES = 3,
    parameter int POLL_CYCLES = 3
) (
    input logic clk,
    input logic rst,
    input logic run,
    input logic [N_QUEUES-1:0] active,
    input logic [N_QUEUES-1:0] want,
    input logic [N_QUEUES-1:0][63:0] rings,
    input logic busy,
    input logic read_valid,
    input logic read_ready,
    input host_read_t read,
    input logic beat_valid,
    input logic beat_ready,
    input logic [31:0] beat,
    input logic head_valid,
    input logic [2:0] head_at,
    input logic [31:0] head,
    // Registers of the module, for the invariants of the induction.
    input logic [2:0] at,
    input logic stale,
    input logic [$clog2(POLL_CYCLES):0] wait_cycles
);
  logic past = 1'b0;
  always_ff @(posedge clk) past <= 1'b1;
  always_comb if (!past) assume (rst);

  // A read that the memory has taken and not answered.
  logic owed;
  always_ff @(posedge clk) owed <= !rst && ((owed && !(beat_valid && beat_ready)) || (read_valid && read_ready));
  always_comb if (!owed) assume (!beat_valid);

  // The queue of the read under way, by the turn in which it began, and whether it was active ever since.
  logic began, run_q, whole;
  logic [N_QUEUES-1:0] want_q;
  logic [63:0] address;
  logic [2:0] turn, turn_q;
  logic given, given_whole;
  logic [31:0] value;
  logic [7:0] since;  // cycles since a read began
  logic begins;
  assign begins = past && !rst && !busy && wait_cycles == '0 && run && want[at];
  always_ff @(posedge clk) begin
    run_q  <= run;
    want_q <= want;
    turn_q <= at;
    began  <= begins;
    if (!busy) begin
      turn    <= at;
      address <= rings[at] + 64'(RING_AT_HEAD);
      whole   <= 1'b1;
    end else if (!active[turn]) whole <= 1'b0;
    given       <= !rst && beat_valid && beat_ready;
    given_whole <= whole && active[turn];
    value       <= beat;
    since       <= rst ? '1 : begins ? 8'd1 : (since == '1) ? since : since + 8'd1;
  end

  // Reads of others that began while a queue wanted one and had none.
  logic [7:0] passed[N_QUEUES];
  always_ff @(posedge clk) begin
    for (int q = 0; q < N_QUEUES; q++) begin
      if (rst || !run || !want[q] || (begins && at == 3'(q))) passed[q] <= '0;
      else if (begins) passed[q] <= passed[q] + 8'd1;
    end
  end

  // Queues whose turn is before that of q.
  logic [7:0] ahead[N_QUEUES];
  always_comb begin
    for (int q = 0; q < N_QUEUES; q++) ahead[q] = (3'(q) >= at) ? 8'(q) - 8'(at) : 8'(q) + 8'(N_QUEUES) - 8'(at);
  end

  always_comb begin
    if (past && !rst) begin
      assert (32'(at) < N_QUEUES && 32'(wait_cycles) <= POLL_CYCLES);
      assert (busy == (read_valid || owed));
      assert (!(read_valid && owed));
      if (busy) assert (at == turn && stale == !whole);
      if (read_valid) assert (read.address == address && read.beats == 24'd1);
      if (began) assert (busy && read_valid && run_q && want_q[turn]);
      if (head_valid) assert (given && given_whole && head == value);
      if (given && given_whole) assert (head_valid);
      if (head_valid) assert (head_at == turn_q);
      assert (9'(since) + 9'(wait_cycles) > 9'(POLL_CYCLES));
      if (begins) assert (since > 8'(POLL_CYCLES));
      for (int q = 0; q < N_QUEUES; q++) begin
        assert (passed[q] < 8'(N_QUEUES));
        // While a read is under way its queue's turn lasts.
        if (busy && at == 3'(q)) assert (passed[q] == '0);
        else assert (passed[q] + ahead[q] < 8'(N_QUEUES) + 8'(busy));
      end
    end
  end
  always_comb cover (past && !rst && head_valid);
  always_comb cover (past && !rst && given && !head_valid);
endmodule

bind head_poller head_poller_props #(
    .N_QUEUES(N_QUEUES),
    .POLL_CYCLES(POLL_CYCLES)
) props (
    .*,
    .at(3'(at))
);
