// queue_poller: indices and credits of rings, what is read, and whose turn it is, for any heads that hosts write.
//
// A head counts when it is at most `slots` ahead of the tail; `left` is that distance. The tail never passes it; a
// descriptor is read only when one is left, from slot index mod size behind the header of the ring that its queue had
// when it was active. A head beyond stops its queue, until that is disabled, and begins no read. While the host submits
// within its credits, no more descriptors are taken than the completions leave room for. With `quiet` no header's
// read begins, without `run` no descriptor's. A queue with descriptors is ready within N_QUEUES + 2 cycles, and waits
// for at most N_QUEUES - 1 of others. The memory answers what it was asked; registers of an enabled queue stay.
module queue_poller_props
  import mnemo_pkg::*;
  import command_types::*;
#(
    parameter int N_QUEUES = 3
) (
    input logic                            clk,
    input logic                            rst,
    input logic                            run,
    input logic                            quiet,
    input logic       [        31:0]       cycle,
    input queue_t     [N_QUEUES-1:0]       queues,
    input logic       [N_QUEUES-1:0]       broken,
    input logic                            busy,
    input logic                            reading,
    input logic       [         1:0]       read_valid,
    input logic       [         1:0]       read_ready,
    input host_read_t [         1:0]       read,
    input logic       [         1:0]       beat_valid,
    input logic       [         1:0]       beat_ready,
    input logic       [       511:0]       beat,
    input logic                            write_valid,
    input host_write_t                     write,
    input logic                            taken_valid,
    input taken_t                          taken,
    // Registers of the module, for the invariants of the induction.
    input logic       [         3:0]       state,
    input logic       [N_QUEUES-1:0]       active,
    input logic       [N_QUEUES-1:0]       to_open,
    input logic                            any_to_open,
    input logic       [N_QUEUES-1:0]       ready,
    input logic                            grants,  // a turn begins with the next cycle
    input logic       [N_QUEUES-1:0]       grant,
    input logic       [N_QUEUES-1:0]       turned,
    input logic       [N_QUEUES-1:0]       later,
    input logic       [N_QUEUES-1:0][31:0] tails,
    input logic       [N_QUEUES-1:0][31:0] heads,
    input logic       [N_QUEUES-1:0][31:0] next_seqs,
    input logic       [         1:0]       look,
    input logic       [         1:0]       chosen,
    input logic       [         1:0]       seen_at,
    input logic                            seen_counts,
    input logic       [        31:0]       seen_head,
    input logic       [        31:0]       seen_tail,
    input logic       [        31:0]       seen_slots,
    input logic       [         1:0]       known_at,
    input logic                            known_valid,
    input logic                            known_counts,
    input logic                            known_some,
    input logic       [        31:0]       known,
    input logic       [        31:0]       known_slots,
    input logic                            asked,
    input logic                            came,
    input logic       [        31:0]       word,
    input logic                            copied,
    input logic                            in_sequence,
    input queue_t                          regs,
    input logic       [        31:0]       tail,
    input logic       [        31:0]       after,
    input logic       [        31:0]       next_seq
);
  localparam logic [3:0] IDLE = 4'd0, OPEN = 4'd1, OPEN_RING = 4'd2, OPEN_COMPLETIONS = 4'd3, OPENED = 4'd4,
      TURN = 4'd5, TAKE = 4'd6, TAKE_ADDRESS = 4'd7, FETCH = 4'd8, COPIED = 4'd9;
  localparam int PROMPT = N_QUEUES + 2;

  logic past = 1'b0;
  always_ff @(posedge clk) past <= 1'b1;
  always_comb if (!past) assume (rst);
  logic on;
  assign on = past && !rst;

  // The environment.
  logic owed;  // a read of rings that the memory has taken and not answered
  queue_t [N_QUEUES-1:0] queues_q;
  logic [N_QUEUES-1:0] enabled, enabled_q;
  always_ff @(posedge clk) begin
    owed      <= !rst && ((owed && !(beat_valid[0] && beat_ready[0])) || (read_valid[0] && read_ready[0]));
    queues_q  <= queues;
    enabled_q <= rst ? '0 : enabled;
  end
  always_comb begin
    for (int q = 0; q < N_QUEUES; q++) enabled[q] = queues[q].enable[0];
    if (!owed) assume (!beat_valid[0]);
    if (quiet) assume (!run);
    for (int q = 0; q < N_QUEUES; q++) begin
      if (past && enabled_q[q] && enabled[q]) assume (used(queues[q]) == used(queues_q[q]));
      assume (queues[q].slots <= 32'd4);
    end
  end

  // The registers of a queue that the poller uses, but for its head, which the host moves.
  function automatic logic [225:0] used(queue_t q);
    return {q.enable[0], q.poll[0], q.ring, q.completions, q.slots, q.seq, q.max_k};
  endfunction

  // The steps of a descriptor: whose it is, and the cycles since its turn.
  logic taking, begins;
  logic [N_QUEUES-1:0] own, copies;
  logic [3:0] gap;
  assign taking = state >= TURN && state <= COPIED;
  assign begins = state == TAKE_ADDRESS && active[chosen];
  assign own = taking ? turned : '0;
  always_comb begin
    for (int q = 0; q < N_QUEUES; q++) copies[q] = state == FETCH && came && chosen == 2'(q);
  end
  always_ff @(posedge clk) begin
    if (state == IDLE) gap <= 4'd1;
    else if (gap != '1) gap <= gap + 4'd1;
  end

  // The card has read: heads as they were sampled, the last of each queue that counts, the registers and the
  // index of the descriptor under way, its bytes, and the numbers that a queue's descriptors have to have.
  logic [31:0] sampled, known_head, index;
  logic [N_QUEUES-1:0][31:0] expected;
  logic [N_QUEUES-1:0][2:0] left;  // from a queue's tail to the last head that counts
  logic [N_QUEUES-1:0] fine, beyond;
  queue_t held, opens;
  logic [511:0] bytes;
  logic [31:0] number, said;
  descriptor_t copy;
  logic [63:0] written_at;
  logic [31:0] written;
  assign copy = descriptor_t'(bytes);
  always_comb begin
    for (int q = 0; q < N_QUEUES; q++) begin
      fine[q] = on && known_valid && known_at == 2'(q) && active[q] && enabled[q] && known_counts &&
          !(state == COPIED && chosen == 2'(q)) && known_head != tails[q] && known_head - tails[q] <= queues[q].slots;
    end
  end
  always_ff @(posedge clk) begin
    sampled    <= queues[look].poll[0] ? heads[look] : queues[look].head;
    known_head <= sampled;
    for (int q = 0; q < N_QUEUES; q++) begin
      if (state == OPEN_RING && chosen == 2'(q)) left[q] <= '0;
      else if (fine[q]) left[q] <= 3'(known_head - tails[q]) - 3'(copies[q]);
      else if (copies[q]) left[q] <= left[q] - 3'd1;
      if (rst || !enabled[q]) beyond[q] <= 1'b0;
      else if (known_valid && known_at == 2'(q) && known_head - tails[q] > queues[q].slots) beyond[q] <= 1'b1;
      if (state == OPENED && chosen == 2'(q)) expected[q] <= regs.seq;
      else if (state == COPIED && chosen == 2'(q) && copy.seq == expected[q]) expected[q] <= expected[q] + 32'd1;
    end
    if (state == OPEN) opens <= queues[chosen];
    if (state == TAKE_ADDRESS) begin
      index  <= tails[chosen];
      number <= next_seqs[chosen];
      held   <= queues_q[chosen];
    end
    if (state == FETCH && beat_valid[0]) bytes <= beat;
    if (beat_valid[0]) said <= beat[31:0];
    if (state == COPIED) begin
      written_at <= held.ring + 64'(RING_AT_TAIL);
      written    <= index + 32'd1;
    end
  end

  // Credits. Descriptors in flight are those taken and not completed; `cycle` is free, so its bits end them.
  logic [N_QUEUES-1:0][2:0] flying;
  always_comb begin
    // The host: a head is at most `slots` ahead of the completions.
    for (int q = 0; q < N_QUEUES; q++) begin
      if (fine[q]) assume (4'(3'(known_head - tails[q])) + 4'(flying[q]) <= queues[q].slots[3:0]);
    end
  end
  always_ff @(posedge clk) begin
    for (int q = 0; q < N_QUEUES; q++) begin
      if (state == OPEN_RING && chosen == 2'(q)) flying[q] <= '0;
      else begin
        flying[q] <= flying[q] + 3'(copies[q]) - 3'(cycle[q] && flying[q] != '0);
      end
    end
  end

  // Waiting. A queue has work while its head is a good one. age: for how many cycles, its own turn apart; stray: for
  // how many the head is beyond; passed: descriptors of others since then; counted: the one under way is among them.
  logic [N_QUEUES-1:0] work, strays, counted;
  logic [3:0] age[N_QUEUES], stray[N_QUEUES], passed[N_QUEUES], ahead[N_QUEUES];
  logic [1:0] behind[N_QUEUES];  // cycles since a queue was looked at
  logic [31:0] given[N_QUEUES];
  logic [1:0] warm;  // cycles since the reset
  always_comb begin
    for (int q = 0; q < N_QUEUES; q++) begin
      given[q] = (queues[q].poll[0] ? heads[q] : queues[q].head) - tails[q];
      work[q] = on && enabled[q] && active[q] && !broken[q] && !own[q] && given[q] != '0 && given[q] <= queues[q].slots;
      strays[q] = on && enabled[q] && active[q] && !broken[q] && !own[q] && given[q] > queues[q].slots;
      behind[q] = (look >= 2'(q)) ? look - 2'(q) : look + 2'(N_QUEUES) - 2'(q);
      ahead[q] = '0;
      for (int m = 0; m < N_QUEUES; m++) begin
        if (m != q && (later[m] == later[q] ? m < q : later[m])) ahead[q] = ahead[q] + 4'd1;
      end
    end
  end
  logic run_q, quiet_q, still_q;
  always_ff @(posedge clk) begin
    run_q   <= run;
    quiet_q <= quiet;
    still_q <= !rst && quiet && !busy && !reading;
    if (rst) warm <= '0;
    else if (warm != '1) warm <= warm + 2'd1;
    for (int q = 0; q < N_QUEUES; q++) begin
      if (!work[q]) age[q] <= '0;
      else if (32'(age[q]) < PROMPT) age[q] <= age[q] + 4'd1;
      if (!strays[q]) stray[q] <= '0;
      else if (32'(stray[q]) < PROMPT) stray[q] <= stray[q] + 4'd1;
      if (!work[q] || (grants && grant[q])) passed[q] <= '0;
      else if (grants) passed[q] <= passed[q] + 4'd1;
      else if (state == TAKE_ADDRESS && !active[chosen] && counted[q]) passed[q] <= passed[q] - 4'd1;
      counted[q] <= work[q] && ((grants && !grant[q]) || (counted[q] && taking));
    end
  end

  // Claims.
  always_comb begin
    if (on) begin
      for (int q = 0; q < N_QUEUES; q++) begin
        if (active[q]) assert (32'(left[q]) <= queues_q[q].slots && 32'(flying[q]) <= queues_q[q].slots);
        if (begins && chosen == 2'(q)) assert (left[q] != '0 && 32'(flying[q]) < queues_q[q].slots);
        if (grants && grant[q]) assert (ready[q] && !broken[q]);
        if (broken[q] && enabled[q]) assert (beyond[q]);
        if (32'(stray[q]) >= PROMPT) assert (broken[q]);
        if (32'(age[q]) >= PROMPT) assert (ready[q]);
        assert (32'(passed[q]) < N_QUEUES);
      end
      if (read_valid[0] && state == FETCH) begin
        assert (read[0].address == held.ring + 64'(RING_HEADER_BYTES) + {26'b0, index & (held.slots - 32'd1), 6'b0});
        assert ((index & (held.slots - 32'd1)) < held.slots && held.enable[0]);
      end
      if (read_valid[0] && state == OPEN_RING) assert (read[0].address == opens.ring + 64'(RING_AT_TAIL));
      if (read_valid[0] && state == OPEN_COMPLETIONS) assert (read[0].address == opens.completions + 64'(RING_AT_HEAD));
      if (read_valid[0]) assert (read[0].beats == 24'd1 && (state == FETCH || opens.enable[0]));
      if (taken_valid) assert (taken.descriptor == copy && used(taken.regs) == used(held) && taken.next_seq == number);
      if (write_valid) begin
        assert (write.address == written_at && write.words == 16'h0001 && write.data[31:0] == written);
      end
      if (state == TURN) assert (run_q);
      if (state == OPEN) assert (!quiet_q);
      if (still_q) assert (!busy && !reading && read_valid == '0);
    end
  end

  // Invariants: the machine.
  logic [N_QUEUES-1:0] above;
  always_comb begin
    above = '0;
    for (int q = 0; q < N_QUEUES; q++) begin
      for (int m = 0; m < q; m++) if (turned[m]) above[q] = 1'b1;
    end
  end
  always_comb begin
    if (on) begin
      assert (state <= COPIED && 32'(look) < N_QUEUES);
      assert ((to_open & active) == '0 && any_to_open == (to_open != '0));
      assert (asked == (owed || came) && !(owed && came));
      assert (!(asked && read_valid[0]));
      if (came) assert (word == said);
      if (came && state == FETCH) assert (taken.descriptor == copy);
      if (owed || came || read_valid[0]) assert (state == OPEN_RING || state == OPEN_COMPLETIONS || state == FETCH);
      if (taking) begin
        assert ($onehot(turned) && later == above);
        assert (!taken_valid && !write_valid);
      end
      if (taking && state != TURN) assert (turned == N_QUEUES'(1) << chosen);
      if (state >= OPEN && state <= OPENED) assert (32'(chosen) < N_QUEUES && !active[chosen]);
      if (state >= OPEN_RING && state <= OPENED) assert (used(regs) == used(opens));
      if (state == OPEN_RING || state == OPEN_COMPLETIONS) assert (opens.enable[0]);
      if (state == TAKE_ADDRESS) assert (tail == tails[chosen] && used(regs) == used(queues_q[chosen]));
      if (state >= FETCH) begin
        assert (used(regs) == used(held) && held.enable[0] && after == index + 32'd1);
        assert (next_seq == number);
      end
      if (state == FETCH) assert (tails[chosen] == index && tail == (index & (held.slots - 32'd1)) && tail < held.slots);
      if (state == COPIED) assert (tails[chosen] == after && taken.descriptor == copy && used(taken.regs) == used(held));
      if (state == COPIED) assert (taken.next_seq == number);
      if (state >= TAKE_ADDRESS || copied) assert (next_seq == next_seqs[chosen]);
      if (copied) assert (state == IDLE);
      for (int q = 0; q < N_QUEUES; q++) begin
        if (active[q]) begin
          assert (enabled_q[q]);
          assert (expected[q] == next_seqs[q] + 32'(copied && in_sequence && chosen == 2'(q)));
        end
        assert (!(ready[q] && broken[q]));
        if (state >= OPEN_RING && state <= OPENED && chosen == 2'(q)) begin
          assert (!ready[q] && !(seen_counts && seen_at == 2'(q)));
          if (state != OPEN_RING) assert (!(known_counts && known_at == 2'(q)) && left[q] == '0 && flying[q] == '0);
        end
      end
    end
  end

  // Invariants: what was looked at, and the credits that come of it.
  logic settles;
  always_comb begin
    for (int q = 0; q < N_QUEUES; q++) begin
      if (on && active[q]) begin
        settles = state == COPIED && chosen == 2'(q);
        if (seen_counts && seen_at == 2'(q) && !settles) assert (seen_tail == tails[q] && seen_slots == queues_q[q].slots);
        if (known_valid && known_counts && known_at == 2'(q) && !settles) begin
          assert (known == known_head - tails[q] && known_slots == queues_q[q].slots);
        end
        if ((ready[q] || own[q]) && !settles) assert (left[q] != '0);
        assert (4'(left[q]) + 4'(flying[q]) <= queues_q[q].slots[3:0]);
      end
    end
    if (on) begin
      assert (seen_head == sampled);
      if (known_counts) assert (known_some == (known != '0));
      if (warm < 2'd3) assert (active == '0 && ready == '0 && (state == IDLE || (state == OPEN && warm == 2'd2)));
      if (warm == '0) assert (to_open == '0 && !known_valid);
      if (warm >= 2'd1) assert (seen_at == ((look == '0) ? 2'(N_QUEUES - 1) : look - 2'd1));
      if (warm >= 2'd2) assert (known_at == ((look < 2'd2) ? look + 2'(N_QUEUES - 2) : look - 2'd2));
    end
  end

  // Invariants: waiting.
  always_comb begin
    if (on) begin
      if (state == TURN) assert (gap == 4'd1);
      if (state == TAKE) assert (gap == 4'd2);
      if (state == TAKE_ADDRESS) assert (gap == 4'd3);
      if (state == FETCH) assert (gap >= 4'd4 + 4'(read_valid[0]) + {2'b0, owed, 1'b0} + (came ? 4'd3 : 4'd0));
      if (state == COPIED) assert (gap >= 4'd8);
      for (int q = 0; q < N_QUEUES; q++) begin
        if (age[q] != '0 || stray[q] != '0) assert (warm == '1);
        if (age[q] != '0 || stray[q] != '0) assert (active[q] && enabled_q[q]);
        if (age[q] != '0 && own[q]) assert (state == TURN);
        if (stray[q] != '0) assert (!own[q] || state == TURN);
        if (behind[q] == 2'd1 && age[q] >= 4'd1) begin
          assert (seen_counts && seen_head != seen_tail && seen_head - seen_tail <= seen_slots);
        end
        if (behind[q] == 2'd2 && age[q] >= 4'd2) begin
          assert (known_valid && known_counts && known_some && known <= known_slots);
        end
        if (age[q] >= 4'd3 + 4'(behind[q])) assert (ready[q]);
        if (behind[q] == 2'd1 && stray[q] >= 4'd1) assert (seen_counts && seen_head - seen_tail > seen_slots);
        if (behind[q] == 2'd2 && stray[q] >= 4'd2) assert (known_valid && known_counts && known > known_slots);
        if (stray[q] >= 4'd3 + 4'(behind[q])) assert (broken[q]);
        assert (32'(passed[q]) + 32'(ahead[q]) < N_QUEUES);
        if (32'(age[q]) < PROMPT) assert (passed[q] == 4'(counted[q] && taking));
        if (counted[q] && taking) assert (age[q] >= gap || 32'(age[q]) >= PROMPT);
        if (counted[q] && taking) assert (!own[q] && passed[q] != '0);
      end
    end
  end
  always_comb cover (on && taken_valid && tails[0] != '0);
  always_comb cover (on && broken == '1);
  always_comb cover (on && passed[0] == 4'(N_QUEUES - 1));
endmodule

bind queue_poller queue_poller_props #(
    .N_QUEUES(N_QUEUES)
) props (
    .*,
    .state(4'(state)),
    .later(turn.later),
    .grants(may_take && any),
    .look(2'(look)),
    .chosen(2'(chosen)),
    .seen_at(2'(seen_at)),
    .known_at(2'(known_at))
);
