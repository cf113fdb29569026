// Takes descriptors of up to N_QUEUES rings (proto/layout/ring.h), one at a time.
//
// A queue that becomes enabled is opened: its place is what its rings' headers say, tail of the descriptors and
// head of the completions (stream `opened`). Then a head is the doorbell register, or with `poll` the header's,
// as head_poller reads it. Round robin: a queue with descriptors waits for at most one of each other queue.
// Stream out: a descriptor, copied once, with its queue and the sequence number that it had to have; the ring's
// tail is written when it is copied. next_seq goes on past a descriptor with the right number alone, whatever its
// verdict: after a gap all others are out of sequence, as in server/memory_service/attachment.cc.
// A head that is more than `slots` ahead of the tail stops its queue, until it is disabled: `broken`, which bit 1
// of kCardQueueEnable shows. No other queue is affected.
// A queue that is disabled while it is opened, or while its head is read, begins anew when it is enabled again.
// A queue that is disabled before its read begins is not read, so that its registers may change at once.
// `quiet` begins no read but that of a descriptor. Latency: N_QUEUES + 11 cycles and a read from a doorbell to its
// descriptor. Stalls: host memory, and `taken`. Reads: 0 rings and descriptors, 1 polled heads.
module queue_poller
  import mnemo_pkg::*;
  import command_types::*;
#(
    parameter int N_QUEUES = 8,
    parameter int POLL_CYCLES = 64
) (
    input  logic                       clk,
    input  logic                       rst,
    input  logic                       run,        // takes descriptors
    input  logic                       quiet,
    input  logic        [        31:0] cycle,
    input  queue_t      [N_QUEUES-1:0] queues,
    output logic        [N_QUEUES-1:0] broken,
    output logic        [        31:0] depth,      // descriptors known and not yet taken
    output logic                       busy,       // a descriptor is on its way
    output logic                       reading,    // a ring's header is read
    output logic                       pending,    // a queue is not open yet, or has descriptors
    output logic                       opened,     // no stall
    output logic        [         2:0] opened_number,
    output logic        [        31:0] opened_head,
    output logic       [          1:0] read_valid,
    input  logic       [          1:0] read_ready,
    output host_read_t [          1:0] read,
    input  logic       [          1:0] beat_valid,
    output logic       [          1:0] beat_ready,
    input  logic        [       511:0] beat,
    output logic                       write_valid,
    input  logic                       write_ready,
    output host_write_t                write,
    output logic                       taken_valid,
    input  logic                       taken_ready,
    output taken_t                     taken
);
  localparam int AT = (N_QUEUES > 1) ? $clog2(N_QUEUES) : 1;
  localparam logic [AT-1:0] LAST = AT'(N_QUEUES - 1);

  typedef enum logic [3:0] {
    IDLE,
    OPEN,
    OPEN_RING,
    OPEN_COMPLETIONS,
    OPENED,
    TURN,
    TAKE,
    TAKE_ADDRESS,
    FETCH,
    COPIED
  } state_t;

  state_t state;
  logic [N_QUEUES-1:0] active, ready, enabled, grant, turned, opens, to_open;  // to_open: `opens`, a cycle old
  logic [N_QUEUES-1:0][3:0] differs;  // a byte of a queue's head from that of its tail
  logic [N_QUEUES-1:0][31:0] tails, heads, next_seqs;  // heads: as polled
  logic [AT-1:0] look, chosen, granted, first_to_open;
  logic [2:0] polled_at;
  logic any_to_open, any, moved, asked, may_take, spoiled, polling, polled, opening, copied, in_sequence;
  logic ask_valid, poll_valid, waits_beat, came;  // came: a beat, which is in `word`
  host_read_t ask, poll;
  logic [31:0] polled_head, word;
  logic [63:0] address;
  logic [N_QUEUES-1:0] due;
  logic [N_QUEUES-1:0][63:0] rings;
  queue_t regs;
  logic [31:0] tail, after, next_seq;  // after: the tail when this descriptor is copied

  always_comb begin
    for (int q = 0; q < N_QUEUES; q++) enabled[q] = queues[q].enable[0];
    first_to_open = '0;
    for (int q = N_QUEUES - 1; q >= 0; q--) if (to_open[q]) first_to_open = AT'(q);
    granted = '0;
    for (int q = 0; q < N_QUEUES; q++) if (turned[q]) granted = granted | AT'(q);
  end

  always_comb begin
    for (int q = 0; q < N_QUEUES; q++) begin
      opens[q] = !rst && enabled[q] && !active[q] && !(state == OPENED && chosen == AT'(q));
    end
  end
  always_ff @(posedge clk) begin
    to_open     <= opens;
    any_to_open <= opens != '0;
  end

  assign opening = any_to_open && !quiet;
  assign may_take = state == IDLE && !opening && run && !taken_valid && !write_valid;

  arbiter #(
      .N(N_QUEUES)
  ) turn (
      .clk,
      .rst,
      .want(ready),
      .take(may_take),
      .grant,
      .any
  );

  // Looks at one queue a cycle, in two steps: how many descriptors it has, then whether that may be. What was looked at
  // while its queue's tail moved is dropped, and no other queue's: each is looked at anew after N_QUEUES cycles.
  logic seen_counts, seen_polls, known_valid, known_counts, known_some, over, fine;
  logic [N_QUEUES-1:0] moves, judged;
  logic [AT-1:0] seen_at, known_at;
  logic [31:0] seen_polled, seen_bell, seen_head, seen_tail, seen_slots, known, known_slots, total;
  assign moved = state == COPIED || state == TAKE;
  always_comb begin
    for (int q = 0; q < N_QUEUES; q++) begin
      moves[q]  = moved && chosen == AT'(q);
      judged[q] = known_valid && known_at == AT'(q);
    end
  end
  assign seen_head = seen_polls ? seen_polled : seen_bell;
  assign over = known > known_slots;
  assign fine = known_counts && known_some && !over;

  always_ff @(posedge clk) begin
    if (rst) begin
      look       <= '0;
      known_valid <= 1'b0;
      ready      <= '0;
      broken     <= '0;
      total      <= '0;
      depth      <= '0;
    end else begin
      look        <= (look == LAST) ? '0 : look + 1'b1;
      known_valid <= !(moved && seen_at == chosen);
      for (int q = 0; q < N_QUEUES; q++) begin
        if (!enabled[q]) broken[q] <= 1'b0;
        else if (active[q] && !moves[q] && judged[q] && known_counts && over) broken[q] <= 1'b1;
        if (!enabled[q] || !active[q] || broken[q] || moves[q]) ready[q] <= 1'b0;
        else if (judged[q]) ready[q] <= fine;
      end
      total <= ((known_at == '0) ? 32'd0 : total) + known;
      if (known_at == '0) depth <= total;
    end
    seen_at     <= look;
    seen_counts <= !rst && active[look] && !broken[look];
    seen_polls  <= queues[look].poll[0];
    seen_polled <= heads[look];
    seen_bell   <= queues[look].head;
    seen_tail   <= tails[look];
    seen_slots  <= queues[look].slots;
    known_at     <= seen_at;
    known_counts <= !rst && seen_counts;
    known        <= seen_counts ? seen_head - seen_tail : 32'd0;
    known_some   <= seen_head != seen_tail;
    known_slots  <= seen_slots;
  end

  // Known at once, unlike `ready`: so the card is not idle from a doorbell's response on.
  logic [N_QUEUES-1:0] waits;
  always_comb begin
    for (int q = 0; q < N_QUEUES; q++) waits[q] = enabled[q] && !broken[q] && (!active[q] || differs[q] != '0);
  end
  always_ff @(posedge clk) begin
    for (int q = 0; q < N_QUEUES; q++) begin
      for (int b = 0; b < 4; b++)
      differs[q][b] <= (queues[q].poll[0] ? heads[q][8*b+:8] : queues[q].head[8*b+:8]) != tails[q][8*b+:8];
    end
    pending <= !rst && waits != '0;
  end

  always_comb begin
    for (int q = 0; q < N_QUEUES; q++) begin
      due[q]   = active[q] && !broken[q] && !ready[q] && queues[q].poll[0];
      rings[q] = queues[q].ring;
    end
  end

  head_poller #(
      .N_QUEUES(N_QUEUES),
      .POLL_CYCLES(POLL_CYCLES)
  ) polls (
      .clk,
      .rst,
      .run(!quiet),
      .active,
      .want(due),
      .rings,
      .busy(polling),
      .read_valid(poll_valid),
      .read_ready(read_ready[1]),
      .read(poll),
      .beat_valid(beat_valid[1]),
      .beat_ready(beat_ready[1]),
      .beat(beat[31:0]),
      .head_valid(polled),
      .head_at(polled_at),
      .head(polled_head)
  );

  assign read_valid = {poll_valid, ask_valid};
  assign read = {poll, ask};
  assign beat_ready[0] = 1'b1;
  assign reading = polling || state == OPEN || state == OPEN_RING || state == OPEN_COMPLETIONS || state == OPENED;
  assign busy = state == TURN || state == TAKE || state == TAKE_ADDRESS || state == FETCH || state == COPIED ||
      taken_valid || write_valid;
  assign waits_beat = state == OPEN_RING || state == OPEN_COMPLETIONS || state == FETCH;

  // `asked`: the read of the present state is under way. A beat comes for none else, so all are taken.
  always_comb begin
    unique case (state)
      OPEN_RING: address = regs.ring + 64'(RING_AT_TAIL);
      OPEN_COMPLETIONS: address = regs.completions + 64'(RING_AT_HEAD);
      default: address = regs.ring + 64'(RING_HEADER_BYTES) + {26'b0, tail, 6'b0};
    endcase
  end

  always_ff @(posedge clk) begin
    if (rst) begin
      ask_valid <= 1'b0;
      asked     <= 1'b0;
    end else begin
      ask_valid <= waits_beat && !asked && !(ask_valid && read_ready[0]);
      asked     <= waits_beat && !came && (asked || (ask_valid && read_ready[0]));
    end
    came <= !rst && beat_valid[0];
    word <= beat[31:0];
    ask.beats <= 24'd1;
    if (!ask_valid) ask.address <= address;
  end

  always_ff @(posedge clk) begin
    if (rst) begin
      state       <= IDLE;
      active      <= '0;
      write_valid <= 1'b0;
      taken_valid <= 1'b0;
      copied      <= 1'b0;
      opened      <= 1'b0;
    end else begin
      opened <= 1'b0;
      if (taken_ready) taken_valid <= 1'b0;
      if (write_ready) write_valid <= 1'b0;
      if (polled) heads[polled_at[AT-1:0]] <= polled_head;
      if (!enabled[chosen]) spoiled <= 1'b1;
      copied <= 1'b0;
      if (copied && in_sequence) next_seqs[chosen] <= next_seq + 32'd1;
      unique case (state)
        IDLE: begin
          if (opening) begin
            chosen  <= first_to_open;
            spoiled <= 1'b0;
            state   <= OPEN;
          end else if (may_take && any) begin
            state <= TURN;
          end
          turned <= grant;
        end
        OPEN: begin
          regs  <= queues[chosen];
          state <= enabled[chosen] ? OPEN_RING : IDLE;
        end
        OPEN_RING: begin
          if (came) begin
            tails[chosen] <= word;
            heads[chosen] <= word;
            state         <= OPEN_COMPLETIONS;
          end
        end
        OPEN_COMPLETIONS: begin
          if (came) begin
            opened_head <= word;
            state       <= OPENED;
          end
        end
        OPENED: begin
          opened            <= !spoiled;
          opened_number     <= 3'(chosen);
          active[chosen]    <= !spoiled;
          next_seqs[chosen] <= regs.seq;
          state             <= IDLE;
        end
        TURN: begin
          chosen <= granted;
          state  <= TAKE;
        end
        TAKE: begin
          regs       <= queues[chosen];
          tail        <= tails[chosen];
          next_seq    <= next_seqs[chosen];
          taken.cycle <= cycle;
          state       <= TAKE_ADDRESS;
        end
        TAKE_ADDRESS: begin
          tail  <= tail & (regs.slots - 32'd1);
          after <= tail + 32'd1;
          state <= active[chosen] ? FETCH : IDLE;
        end
        FETCH: begin
          taken.regs     <= regs;
          taken.number   <= 3'(chosen);
          taken.next_seq <= next_seq;
          if (came) begin
            tails[chosen] <= after;
            state         <= COPIED;
          end else begin
            taken.descriptor <= descriptor_t'(beat);
          end
        end
        COPIED: begin
          copied        <= 1'b1;
          in_sequence   <= taken.descriptor.seq == next_seq;
          taken_valid   <= 1'b1;
          write_valid   <= 1'b1;
          write.address <= regs.ring + 64'(RING_AT_TAIL);
          write.words   <= 16'h0001;
          write.data    <= {480'b0, after};
          state         <= IDLE;
        end
        default: state <= IDLE;
      endcase
      for (int q = 0; q < N_QUEUES; q++) if (!enabled[q]) active[q] <= 1'b0;
    end
  end

  stream_if #(
      .WIDTH($bits(taken_t))
  ) check_taken (
      .clk,
      .rst,
      .valid(taken_valid),
      .ready(taken_ready),
      .data(taken)
  );
endmodule
