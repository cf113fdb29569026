// Answers of kSelectLatest in place of the selector's: the last entries of the range, which nobody scores.
//
// Streams in: contexts as the result writer takes them (a tap: `context_take`); the selector's heads and hits. Streams
// out: heads and hits of the result writer; those of a latest descriptor are made here, one head a block and 16 ids a
// cycle, all others pass. Nothing stalls but the takers. Latency: none for those that pass.
//
// Equals kSelectLatest of layout::ScoreSelect.
module latest_source
  import card_types::*;
  import command_types::*;
(
    input  logic             clk,
    input  logic             rst,
    input  logic             context_take,
    /* verilator lint_off UNUSEDSIGNAL */  // the rest is the result writer's
    input  context_t         context_in,
    /* verilator lint_on UNUSEDSIGNAL */
    input  logic             head_valid,
    output logic             head_ready,
    input  hit_head_t        head,
    input  logic             hit_valid,
    output logic             hit_ready,
    input  hit_beat_t        hit_beat,
    input  logic     [511:0] hit_ids,
    input  logic     [511:0] hit_ranks,
    output logic             out_head_valid,
    input  logic             out_head_ready,
    output hit_head_t        out_head,
    output logic             out_hit_valid,
    input  logic             out_hit_ready,
    output hit_beat_t        out_hit_beat,
    output logic     [511:0] out_hit_ids,
    output logic     [511:0] out_hit_ranks
);
  logic active;
  logic [31:0] entries, count, first, started;
  logic [31:0] next, left;  // of the block's ids that have not gone
  logic some, last, one_beat;  // ids have not gone; those of one beat; a block has no more than that
  logic [15:0][31:0] ids;

  // A head goes out when the block before it has gone.
  assign out_head_valid = active ? !some : head_valid;
  assign head_ready = !active && out_head_ready;
  assign out_hit_valid = active ? some : hit_valid;
  assign hit_ready = !active && out_hit_ready;
  always_comb begin
    for (int i = 0; i < 16; ++i) ids[i] = next + 32'(i);
    out_head = head;
    out_hit_beat = hit_beat;
    out_hit_ids = hit_ids;
    out_hit_ranks = hit_ranks;
    if (active) begin
      out_head = '{
          to_list: 1'b0,
          measured: 1'b0,
          scored: started,
          pages: '0,
          candidates: entries,
          cut: 1'b0,
          count: count,
          last_rank: '0,
          weigh: '0
      };
      out_hit_beat = '{last: last, count: last ? left[4:0] : 5'd16};
      out_hit_ids = ids;
      out_hit_ranks = '0;
    end
  end

  always_ff @(posedge clk) begin
    if (context_take) begin
      active <= context_in.latest;
      entries <= context_in.entries;
      count <= context_in.latest_count;
      one_beat <= context_in.latest_count <= 32'd16;
      first <= context_in.latest_first;
      started <= context_in.started_at;
      some <= 1'b0;
    end else if (active) begin
      if (!some) begin
        next <= first;
        left <= count;
        last <= one_beat;
        some <= out_head_ready && count != '0;
      end else if (out_hit_ready) begin
        next <= next + 32'd16;
        left <= left - 32'd16;
        last <= left <= 32'd32;
        some <= !last;
      end
    end
    if (rst) begin
      active <= 1'b0;
      some <= 1'b0;
    end
  end

endmodule
