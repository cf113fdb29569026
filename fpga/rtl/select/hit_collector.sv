// Takes the hit groups of all lanes in page order and makes ids and ranks of them, 16 a beat, or entries of lanes'
// lists: of the hits that equal the last rank the first `need`, of all `count`. Lists of a listed job are used twice.
// Groups of codes of 32 bits have up to
// 4 hits. Hits of SHAPE_MAXIMA are pages: their entries have the mask of the job's range.
//
// Streams: groups in, a group a cycle, latency 6 cycles to the beats' FIFO; list writes, one a page. The FIFO's
// level stalls the groups, nothing else. `start` begins a job (its figures are held until `done`); `done` says that
// all is out or in the FIFO. `clear` drops what is left of a job.
//
// Equals the last loop of layout::TopK, and layout::ScoreSelect's ids and ranks without kFlagByRank.
module hit_collector #(
    parameter int CHANNELS = 2
) (
    input  logic                     clk,
    input  logic                     rst,
    input  logic                     start,
    input  logic                     clear,
    /* verilator lint_off UNUSEDSIGNAL */  // the lanes' part
    input  select_types::decision_t  decision,
    /* verilator lint_on UNUSEDSIGNAL */
    input  logic                     list_slot,
    output logic                     exhausted,
    output logic                     done,
    input  logic                     group_valid,
    output logic                     group_ready,
    input  select_types::hit_group_t group,
    output select_types::list_write_t list_write,
    output logic                     hit_valid,
    input  logic                     hit_ready,
    output card_types::hit_beat_t    hit_beat,
    output logic [511:0]             hit_ids,
    output logic [511:0]             hit_ranks
);

  import card_types::*;
  import select_types::*;

  localparam int LANES = $clog2(CHANNELS);

  logic active, room;
  logic [23:0] need, left;
  wire take = group_valid && group_ready;
  assign group_ready = active && room;

  // 1: hits of the last rank before each.
  logic valid1;
  hit_group_t group1;
  logic [HITS-1:0][3:0] ties_before;
  logic [3:0] ties;
  function automatic logic [3:0] ones(input logic [HITS-1:0] bits, input int below);
    ones = 4'd0;
    for (int n = 0; n < HITS; ++n) if (n < below) ones = ones + 4'(bits[n]);
  endfunction
  always_ff @(posedge clk) begin
    valid1 <= take && !group.finish && !clear;
    group1 <= group;
    for (int i = 0; i < HITS; ++i) ties_before[i] <= ones(group.equal & group.valid, i);
    ties <= ones(group.equal & group.valid, HITS);
  end

  // 2: those that are kept.
  logic valid2;
  hit_group_t group2;
  logic [HITS-1:0] keep2;
  wire [23:0] need_left = need - 24'(ties);
  wire short_of = need < 24'(ties);
  always_ff @(posedge clk) begin
    valid2 <= valid1 && !clear;
    group2 <= group1;
    for (int i = 0; i < HITS; ++i) begin
      keep2[i] <= group1.valid[i] && (!group1.equal[i] || need > 24'(ties_before[i]));
    end
    if (start) need <= decision.need;
    else if (valid1) need <= short_of ? 24'd0 : need_left;
    exhausted <= active && need == 24'd0 && !clear;
  end

  // 3: places among the kept ones; the page of the index; entries of the page.
  logic valid3;
  /* verilator lint_off UNUSEDSIGNAL */  // the masks have become keep3
  hit_group_t group3;
  /* verilator lint_on UNUSEDSIGNAL */
  logic [HITS-1:0] keep3;
  logic [HITS-1:0][3:0] kept_before;
  logic [3:0] kept;
  logic [23:0] page3;
  logic [63:0] mask3, from_first, to_last;
  wire [23:0] virtual_page = 24'(group2.row) << LANES | 24'(group2.lane);
  always_ff @(posedge clk) begin
    valid3 <= valid2 && keep2 != '0 && !clear;
    group3 <= group2;
    keep3 <= keep2;
    for (int i = 0; i < HITS; ++i) kept_before[i] <= ones(keep2, i);
    kept <= ones(keep2, HITS);
    page3 <= virtual_page - 24'(decision.job.shift);
    mask3 <= '0;
    for (int b = 0; b < 64; ++b) begin
      for (int i = 0; i < HITS; ++i) if (keep2[i] && group2.at[i] == 6'(b)) mask3[b] <= 1'b1;
    end
    if (decision.job.shape == SHAPE_MAXIMA) begin
      mask3 <= (virtual_page == decision.job.first_page ? from_first : '1) &
          (virtual_page == decision.job.last_page ? to_last : '1);
    end
    from_first <= '1 << decision.job.skip;
    to_last <= '1 >> (6'd63 - decision.job.last_entry);
  end

  // 4: places in the beat.
  logic valid4, completes4, final4;
  logic [HITS-1:0] keep4;
  logic [HITS-1:0][4:0] place;  // 16 and above: in the next beat
  logic [HITS-1:0][31:0] id;
  logic [HITS-1:0][15:0] code4;
  logic [3:0] filled;
  logic [4:0] filled_after;
  assign filled_after = 5'(filled) + 5'(kept);
  wire final3 = left == 24'(kept);
  function automatic logic [31:0] id_of(input shape_t shape, input logic [23:0] page, input logic [5:0] at);
    unique case (shape)
      SHAPE_TOKENS: id_of = {2'd0, page, at};
      SHAPE_PARTS: id_of = {6'd0, page, at[1:0]};
      default: id_of = {8'd0, page};
    endcase
  endfunction
  always_ff @(posedge clk) begin
    valid4 <= valid3 && !clear;
    completes4 <= filled_after[4];
    final4 <= final3;
    keep4 <= keep3;
    code4 <= group3.code;
    for (int i = 0; i < HITS; ++i) begin
      place[i] <= 5'(filled) + 5'(kept_before[i]);
      id[i] <= id_of(decision.job.shape, page3, group3.at[i]);
    end
    if (start) begin
      left <= decision.count;
      filled <= 4'd0;
    end else if (valid3) begin
      left <= left - 24'(kept);
      filled <= filled_after[3:0];
    end
  end

  // 5: the beat. Hits of the next beat go to places that this one has left.
  logic [15:0][31:0] beat_ids, ids, held_ids;
  logic [15:0][31:0] beat_codes, codes, held_codes;
  wire wide = decision.job.exp2 || decision.job.relu;
  logic [15:0] placed, later;
  always_comb begin
    placed = '0;
    later = '0;
    ids = '0;
    codes = '0;
    for (int j = 0; j < 16; ++j) begin
      for (int i = 0; i < HITS; ++i) begin
        if (keep4[i] && place[i][3:0] == 4'(j)) begin
          placed[j] = 1'b1;
          later[j] = later[j] | place[i][4];
          ids[j] = ids[j] | id[i];
          codes[j] = codes[j] | {wide ? code4[i%4+4] : 16'd0, code4[i]};
        end
      end
    end
  end
  logic beat_valid, flush;
  hit_beat_t beat;
  wire out = valid4 && !decision.job.to_list;
  always_ff @(posedge clk) begin
    flush <= out && final4 && filled != 4'd0 && !clear;
    beat_valid <= ((out && completes4) || flush) && !clear;
    beat <= flush ? '{last: 1'b1, count: 5'(filled)} : '{last: final4 && filled == 4'd0, count: 5'd16};
    for (int j = 0; j < 16; ++j) begin
      if (valid4 && placed[j]) begin
        held_ids[j] <= ids[j];
        held_codes[j] <= codes[j];
      end
      beat_ids[j] <= placed[j] && !later[j] && !flush ? ids[j] : held_ids[j];
      beat_codes[j] <= placed[j] && !later[j] && !flush ? codes[j] : held_codes[j];
    end
  end

  // 6: ranks of codes.
  logic [15:0][31:0] ranks;
  always_comb begin
    for (int j = 0; j < 16; ++j) begin
      ranks[j] = beat_codes[j] - code_bias(decision.job.plain, decision.job.exp2, decision.job.relu);
    end
  end
  localparam int WIDTH = 512 + 512 + $bits(hit_beat_t);
  logic [5:0] level;
  /* verilator lint_off UNUSEDSIGNAL */
  logic beat_ready;  // the level leaves room
  /* verilator lint_on UNUSEDSIGNAL */
  fifo #(
      .WIDTH(WIDTH),
      .DEPTH(32)
  ) beats (
      .clk,
      .rst,
      .in_valid(beat_valid),
      .in_ready(beat_ready),
      .in_data({beat, ranks, beat_ids}),
      .out_valid(hit_valid),
      .out_ready(hit_ready),
      .out_data({hit_beat, hit_ranks, hit_ids}),
      .level
  );
  always_ff @(posedge clk) room <= level < 6'd20;

  // Lists: the entries of a page come one after the other.
  /* verilator lint_off UNUSEDSIGNAL */  // done, twice and slot are those of the write
  list_write_t gathered;
  /* verilator lint_on UNUSEDSIGNAL */
  logic list_final, list_end;
  wire list_take = valid3 && decision.job.to_list;
  wire same_page = gathered.valid && gathered.lane == group3.lane && gathered.row == group3.row;
  always_ff @(posedge clk) begin
    list_write <= '{
        valid: gathered.valid && ((list_take && !same_page) || list_final) && !clear,
        done: list_end && !clear,
        twice: decision.job.listed,
        slot: list_slot,
        lane: gathered.lane,
        row: gathered.row,
        mask: gathered.mask
    };
    list_final <= list_take && final3 && !clear;
    list_end <= (list_final || (start && decision.job.to_list && decision.count == 24'd0)) && !clear;
    if (list_take) begin
      gathered.valid <= 1'b1;
      gathered.lane <= group3.lane;
      gathered.row <= group3.row;
      gathered.mask <= same_page ? gathered.mask | mask3 : mask3;
    end
    if (rst || clear || list_final) gathered.valid <= 1'b0;
    gathered.done <= 1'b0;
    gathered.twice <= 1'b0;
    gathered.slot <= 1'b0;
  end

  // The end: three cycles after the last hit has its place all is out.
  logic [3:0] ends;
  always_ff @(posedge clk) begin
    if (start) active <= decision.count != 24'd0;
    ends <= {ends[2:0], (valid3 && final3 && active) || (start && decision.count == 24'd0)};
    if (valid3 && final3) active <= 1'b0;
    done <= ends[3];
    if (rst || clear) begin
      active <= 1'b0;
      ends <= 4'd0;
      done <= 1'b0;
    end
  end

`ifndef SYNTHESIS
  assert property (@(posedge clk) disable iff (rst) beat_valid |-> beat_ready);
  assert property (@(posedge clk) disable iff (rst || clear) valid3 |-> active && left >= 24'(kept));
`endif

endmodule
