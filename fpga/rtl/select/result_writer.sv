// Writes the results of descriptors (proto/layout/payload.h) to host memory and sums up what their completions say.
//
// Streams in: contexts of descriptors in order; for each job of an accepted one the head of its hits, then, when its
// ids are wanted and there are any, the hits, 16 a beat. Streams out: writes of a line of 64 bytes or a part of it, and
// the descriptor, when its last write is handed over. `responded` pulses when it is taken and all of its writes have
// their responses (`written`, one a response).
// A block: the header, ids behind it, ranks at RanksOffset(k) when asked for. Words behind `count` are not written:
// lines are written with a strobe a word. A line that two beats share is put together first.
// Latency: 6 cycles from a head to its first write, then a cycle a line and beat; a cycle from the last response to
// `responded`. Stalls: host memory, and `finished`.
module result_writer
  import mnemo_pkg::*;
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
  typedef enum logic [3:0] {
    IDLE,
    HEAD,
    PAGES,
    START,
    LINES,
    REST,
    JOB_END,
    RESPONSES
  } state_t;

  state_t state;
  /* verilator lint_off UNUSEDSIGNAL */  // the rest is copied to `finished` at once
  context_t now;
  hit_head_t hits;
  /* verilator lint_on UNUSEDSIGNAL */
  logic of_ranks;  // what is left of the last lines: the present one is one of ranks
  logic list_stage;
  logic [15:0] block_left;
  logic [7:0] open;  // writes without a response
  logic [31:0] started, last_scored;
  /* verilator lint_off UNUSEDSIGNAL */  // the sign tells which is later
  logic [31:0] since_start, scored_after;
  /* verilator lint_on UNUSEDSIGNAL */
  logic late;  // the descriptor was taken before the last one's scores were made
  logic scored_once;
  logic [33:0] product;
  logic [23:0] pages;
  logic [9:0] beats;

  // [0]: ids, [1]: ranks. Where their words begin within a line, the line, and the words of the present line that
  // the last beat left.
  logic [1:0][3:0] first;
  logic scored_early;  // the job's scores were there before its descriptor's start
  logic [63:0] block_bytes;
  logic [1:0][57:0] line;
  logic [1:0][511:0] carry;
  logic [1:0][15:0] carry_words;

  // Lines of a beat, ids and then ranks when asked for: picked, then turned, then written. A beat is taken with its
  // last line, and none of the next job is.
  logic taking, picking_ranks;
  logic picked_valid, picked_ranks, picked_last;
  logic [511:0] picked;
  logic [4:0] picked_count;
  logic [3:0] picked_first;
  logic turned_valid, turned_ranks, turned_last;
  logic [511:0] rotated, turned;
  logic [31:0] placed;
  logic [15:0] turned_here, turned_next;  // words of the present line and of the next one; 0 without turned_valid

  wire all_written = !write_valid && (open == '0 || (open == 8'd1 && written));
  wire write_free = !write_valid || write_ready;
  wire turn_free = !turned_valid || write_free;
  wire pick_free = !picked_valid || turn_free;
  wire pick_ends = picking_ranks == now.ranks;
  wire put_line = turned_valid && write_free;
  wire put_ranks = state == REST ? of_ranks : turned_ranks;
  assign context_ready = state == IDLE;
  assign head_ready = state == HEAD;
  assign hit_ready = taking && pick_ends && pick_free;
  assign busy = state != IDLE;

  // Words of the beat, turned to where they lie in the line: in two steps of 4:1.
  always_comb begin
    logic [511:0] by_four;
    for (int w = 0; w < 16; w++) by_four[32*w+:32] = picked[32*((w+16-4*int'(picked_first[3:2]))%16)+:32];
    for (int w = 0; w < 16; w++) rotated[32*w+:32] = by_four[32*((w+16-int'(picked_first[1:0]))%16)+:32];
    placed = '0;
    for (int w = 0; w < 16; w++) placed[w] = picked_valid && 5'(w) < picked_count;
    placed = placed << picked_first;
  end

  always_ff @(posedge clk) begin
    if (pick_free) begin
      picked_valid <= taking && hit_valid;
      picked       <= picking_ranks ? hit_ranks : hit_ids;
      picked_count <= hit_beat.count;
      picked_first <= first[picking_ranks];
      picked_ranks <= picking_ranks;
      picked_last  <= pick_ends && hit_beat.last;
      if (taking && hit_valid) begin
        picking_ranks <= !pick_ends;
        if (pick_ends && hit_beat.last) taking <= 1'b0;
      end
    end
    if (turn_free) begin
      turned_valid                <= picked_valid;
      turned                      <= rotated;
      {turned_next, turned_here}  <= placed;
      turned_ranks                <= picked_ranks;
      turned_last                 <= picked_last;
    end
    if (state == START) begin
      picking_ranks <= 1'b0;
      taking        <= !list_stage && (hits.count != '0 || hits.weigh.on);
    end
    if (rst) begin
      taking       <= 1'b0;
      picked_valid <= 1'b0;
      turned_valid <= 1'b0;
      turned_here  <= '0;
    end
  end

  // Figures of a head, for the cycle in which its job starts.
  always_ff @(posedge clk) begin
    product      <= pages * beats;
    scored_early <= since_start[31];
    if (hits.weigh.on) block_bytes <= {34'b0, now.block_units, 6'b0};
    else block_bytes <= 64'd16 + (now.ranks ? {29'b0, hits.count, 3'b0} : {30'b0, hits.count, 2'b0});
  end

  always_ff @(posedge clk) begin
    ev_job   <= !rst && state == JOB_END && !now.latest;
    ev_stall <= !rst && turned_valid && !write_free;
    if (rst) begin
      state          <= IDLE;
      write_valid    <= 1'b0;
      finished_valid <= 1'b0;
      responded      <= 1'b0;
      open           <= '0;
      scored_once    <= 1'b0;
    end else begin
      responded <= 1'b0;
      if (write_ready) write_valid <= 1'b0;
      if (finished_ready) finished_valid <= 1'b0;
      open <= open + 8'(write_valid && write_ready) - 8'(written);
      unique case (state)
        IDLE:
        if (context_valid) begin
          state          <= (context_in.status == STATUS_OK) ? HEAD : RESPONSES;
          finished_valid <= context_in.status != STATUS_OK;
        end
        HEAD: if (head_valid) state <= PAGES;
        PAGES: state <= START;
        START: state <= list_stage ? JOB_END : (hits.count == '0 && !hits.weigh.on) ? REST : LINES;
        LINES: begin
          if (put_line) begin
            write_valid <= 1'b1;
            if (turned_last) state <= REST;
          end
        end
        // The rest of the last lines.
        REST: begin
          if (write_free) begin
            write_valid <= carry_words[of_ranks] != '0;
            if (of_ranks == now.ranks) state <= JOB_END;
          end
        end
        JOB_END: begin
          state          <= (!list_stage && block_left == '0) ? RESPONSES : HEAD;
          finished_valid <= !list_stage && block_left == '0;
        end
        default:
        if (!finished_valid && all_written) begin
          responded <= 1'b1;
          state     <= IDLE;
        end
      endcase
      if (state == START && !list_stage) scored_once <= 1'b1;
    end

    unique case (state)
      IDLE: begin
        now        <= context_in;
        block_left <= context_in.blocks;
      end
      HEAD: begin
        hits  <= head;
        pages <= head.pages[23:0];
        beats <= head.to_list ? now.first_beats : now.second_beats;
        list_stage <= head.to_list || head.measured;
      end
      START: begin
        first       <= {now.k[3:0] + 4'd4, 4'd4};
        line[0]     <= now.address[63:6];
        line[1]     <= now.address[63:6] + ((58'(now.k) + 58'd4) >> 4);
        carry[0]    <= {384'b0, hits.cut ? RESULT_CUT : 32'd0, hits.last_rank, hits.candidates, hits.count};
        carry_words <= {16'h0000, 16'h000F};
        of_ranks    <= 1'b0;
        if (!list_stage) begin
          block_left   <= block_left - 1'b1;
          now.address  <= now.address + {34'b0, now.block_units, 6'b0};
        end
      end
      LINES:
      if (put_line) begin
        line[turned_ranks]        <= line[turned_ranks] + 1'b1;
        carry[turned_ranks]       <= turned;
        carry_words[turned_ranks] <= turned_next;
      end
      REST: if (write_free) of_ranks <= 1'b1;
      default: ;
    endcase
    if (write_free) begin
      write.address <= {line[put_ranks], 6'b0};
      write.words   <= carry_words[put_ranks] | turned_here;
      for (int w = 0; w < 16; w++)
      write.data[32*w+:32] <= turned_here[w] ? turned[32*w+:32] : carry[put_ranks][32*w+:32];
    end
  end

  // Times of the completion. It starts when its first job could: not before the last descriptor's scores are made, which
  // is known a cycle later.
  assign since_start = hits.scored - started;
  assign scored_after = last_scored - context_in.started_at;
  always_ff @(posedge clk) begin
    late <= state == IDLE && scored_once && !scored_after[31];
    if (late) started <= last_scored;
    unique case (state)
      IDLE: begin
        finished.number        <= context_in.number;
        finished.status        <= context_in.status;
        finished.detail        <= context_in.detail;
        finished.seq           <= context_in.seq;
        finished.index_id      <= context_in.index_id;
        finished.watermark     <= context_in.watermark;
        finished.count         <= '0;
        finished.bytes_read    <= '0;
        finished.bytes_written <= '0;
        started                <= context_in.started_at;
      end
      START: begin
        finished.bytes_read <= finished.bytes_read + {24'b0, product, 6'b0};
        if (!list_stage) begin
          finished.count <= finished.count + hits.count;
          finished.bytes_written <= finished.bytes_written + block_bytes;
          last_scored <= scored_early ? started : hits.scored;
        end
      end
      JOB_END: begin
        finished.queue_cycles <= started - now.taken_at;
        finished.score_cycles <= last_scored - started;
        finished.scored_at    <= last_scored;
      end
      default: ;
    endcase
  end
endmodule
