// Takes the hit groups of all lanes in page order and makes ids and ranks of them, 16 a beat, or entries of lanes'
// lists: of the hits that equal the last rank the first `need`, of all `count`. Lists of a listed job are used twice.
// Groups of codes of 32 bits have up to
// 4 hits. Hits of SHAPE_MAXIMA are pages: their entries have the mask of the job's range.
//
// Streams: groups in, a group a cycle, latency 6 cycles to the beats' FIFO; list writes, one a page. The FIFO's
// level stalls the groups, nothing else. `start` begins a job (its figures are held until `done`), 2 cycles behind
// `pages_end` of the one before or later; `done` says that all is out or in the FIFO, or will be a cycle later. Groups behind the
// last hit are dropped, up to `pages_end` or `clear`.
//
// Equals the last loop of layout::TopK, and layout::ScoreSelect's ids and ranks without kFlagByRank.
module hit_collector #(
    parameter int CHANNELS = 2
) (
    input  logic                     clk,
    input  logic                     rst,
    input  logic                     start,
    input  logic                     clear,
    input  logic                     pages_end,  // no page follows of the job
    /* verilator lint_off UNUSEDSIGNAL */  // the lanes' part
    input  select_types::decision_t  decision,
    /* verilator lint_on UNUSEDSIGNAL */
    input  logic                     list_slot,
    output logic                     exhausted,
    output logic                     done,
    input  logic                     group_valid,
    output logic                     group_ready,  // a page may go: its group comes up to 4 cycles later
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

  logic active, open, room;
  logic [23:0] need, left;
  assign group_ready = open && room;

  // Ones among the bits before each of 8, and among all of them: those of four bits, then both fours together.
  function automatic logic [2:0] ones_of_four(input logic [3:0] bits);
    unique case (bits)
      4'h0: ones_of_four = 3'd0;
      4'h1, 4'h2, 4'h4, 4'h8: ones_of_four = 3'd1;
      4'h7, 4'hB, 4'hD, 4'hE: ones_of_four = 3'd3;
      4'hF: ones_of_four = 3'd4;
      default: ones_of_four = 3'd2;
    endcase
  endfunction
  function automatic logic [HITS:0][3:0] ones_before(input logic [HITS-1:0] bits);
    for (int i = 0; i <= 4; ++i) ones_before[i] = 4'(ones_of_four(bits[3:0] & ~(4'hF << i)));
    for (int i = 1; i <= 4; ++i)
    ones_before[i+4] = 4'(ones_of_four(bits[3:0])) + 4'(ones_of_four(bits[7:4] & ~(4'hF << i)));
  endfunction

  // 1: hits of the last rank before each.
  logic valid1;
  hit_page_t page1;
  hit_body_t group1;
  logic [HITS:0][3:0] ties_before;
  always_ff @(posedge clk) begin
    valid1 <= group_valid && !clear;
    if (group_valid) begin
      page1 <= group.page;
      group1 <= group.body;
      ties_before <= ones_before(group.body.equal);
    end
  end

  // 2: those that are kept.
  logic valid2;
  /* verilator lint_off UNUSEDSIGNAL */  // the masks have become keep2; an end is no group
  hit_page_t page2;
  hit_body_t group2;
  /* verilator lint_on UNUSEDSIGNAL */
  logic [HITS-1:0] keep2;
  logic [HITS-1:0][7:0] eighth2, of_eighth2;  // where a hit is: which eighth of the page, and where there
  wire [3:0] ties = ties_before[HITS];
  wire plenty = need[23:4] != 20'd0;
  wire [23:0] need_left = need - 24'(ties);
  wire short_of = !plenty && need[3:0] < ties;
  always_ff @(posedge clk) begin
    valid2 <= valid1 && !clear;
    if (valid1) begin
      page2 <= page1;
      group2 <= group1;
      for (int i = 0; i < HITS; ++i) begin
        keep2[i] <= group1.valid[i] && (!group1.equal[i] || plenty || need[3:0] > ties_before[i]);
        eighth2[i] <= 8'd1 << group1.at[i][5:3];
        of_eighth2[i] <= 8'd1 << group1.at[i][2:0];
      end
    end
    if (start) need <= decision.need;
    else if (valid1) need <= short_of ? 24'd0 : need_left;
    exhausted <= active && need == 24'd0 && !clear;
  end

  // 3: places among the kept ones; the page of the index; entries of the page.
  logic valid3;
  /* verilator lint_off UNUSEDSIGNAL */  // the masks have become keep3; an end is no group
  hit_page_t source3;
  hit_body_t group3;
  /* verilator lint_on UNUSEDSIGNAL */
  logic [HITS-1:0] keep3;
  logic [HITS:0][3:0] kept_before;
  logic [23:0] page3;
  logic [63:0] mask3, from_first, to_last;
  wire [3:0] kept = kept_before[HITS];
  wire [23:0] virtual_page = 24'(page2.row) << LANES | 24'(page2.lane);
  function automatic logic [63:0] entries_of(input logic [HITS-1:0] keep, input logic [HITS-1:0][7:0] eighth,
                                             input logic [HITS-1:0][7:0] of_eighth);
    entries_of = '0;
    for (int b = 0; b < 64; ++b) begin
      for (int i = 0; i < HITS; ++i) entries_of[b] = entries_of[b] | (keep[i] && eighth[i][b/8] && of_eighth[i][b%8]);
    end
  endfunction
  always_ff @(posedge clk) begin
    valid3 <= valid2 && keep2 != '0 && !clear;
    if (valid2) begin
      source3 <= page2;
      group3 <= group2;
      keep3 <= keep2;
      kept_before <= ones_before(keep2);
      page3 <= virtual_page - 24'(decision.job.shift);
      if (decision.job.shape == SHAPE_MAXIMA) begin
        mask3 <= (virtual_page == decision.job.first_page ? from_first : '1) &
            (virtual_page == decision.job.last_page ? to_last : '1);
      end else begin
        mask3 <= entries_of(keep2, eighth2, of_eighth2);
      end
    end
    from_first <= '1 << decision.job.skip;
    to_last <= '1 >> (6'd63 - decision.job.last_entry);
  end

  // 4: columns of the beats. A hit goes to the column of its place in the job; columns 8 apart have the same hit, which
  // one of them takes. A hit behind the last column goes to the row of the next beat.
  logic valid4, completes4, final4;
  logic [3:0] filled;
  logic [4:0] filled_after;
  assign filled_after = 5'(filled) + 5'(kept);
  wire final3 = left == 24'(kept);
  wire wide = decision.job.exp2 || decision.job.relu;
  logic [HITS-1:0][2:0] hit_of4;  // by column
  logic [15:0] taken4, next4;  // columns that take a hit, and those of the next beat
  logic [29:0] page_id, page4;
  logic [HITS-1:0][5:0] at4;
  // Ranks: those of 32 bits have up to 4 hits; the other hits' ranks have 16 bits and a sign.
  logic [HITS-1:0][15:0] low4;
  logic [3:0][15:0] high4;
  logic [7:4] negative4;
  logic [31:0] bias;
  function automatic logic [HITS-1:0][2:0] hits_of(input logic [HITS-1:0] keep, input logic [HITS:0][3:0] places,
                                                   input logic [2:0] first);
    logic [2:0] place;
    hits_of = '0;
    for (int i = 0; i < HITS; ++i) begin
      place = first + places[i][2:0];
      for (int c = 0; c < HITS; ++c) if (keep[i] && place == 3'(c)) hits_of[c] = hits_of[c] | 3'(i);
    end
  endfunction
  always_comb begin
    unique case (decision.job.shape)
      SHAPE_TOKENS: page_id = {page3, 6'd0};
      SHAPE_PARTS: page_id = {4'd0, page3, 2'd0};
      default: page_id = {6'd0, page3};
    endcase
  end
  always_ff @(posedge clk) begin
    valid4 <= valid3 && !clear;
    bias <= code_bias(decision.job.plain, decision.job.exp2, decision.job.relu);
    if (valid3) begin
      completes4 <= filled_after[4];
      final4 <= final3;
      hit_of4 <= hits_of(keep3, kept_before, filled[2:0]);
      page4 <= page_id;
      for (int c = 0; c < 16; ++c) begin
        taken4[c] <= 4'(c) - filled < kept;
        next4[c] <= 4'(c) < filled;
      end
      for (int i = 0; i < HITS; ++i) begin
        unique case (decision.job.shape)
          SHAPE_TOKENS: at4[i] <= group3.at[i];
          SHAPE_PARTS: at4[i] <= {4'd0, group3.at[i][1:0]};
          default: at4[i] <= 6'd0;
        endcase
      end
      for (int i = 0; i < 4; ++i) begin
        {high4[i], low4[i]} <= {wide ? group3.code[i+4] : 16'd0, group3.code[i]} - bias;
        {negative4[i+4], low4[i+4]} <= {1'b0, group3.code[i+4]} - {1'b0, bias[15:0]};
      end
    end
    if (start) begin
      left <= decision.count;
      filled <= 4'd0;
    end else if (valid3) begin
      left <= left - 24'(kept);
      filled <= filled_after[3:0];
    end
  end

  // 5: the columns' hits.
  logic [15:0] taken5, next5;
  logic [23:0] page5;
  logic [HITS-1:0][5:0] at5;
  logic [HITS-1:0][15:0] low5, high5;
  logic beat_valid, flush;
  hit_beat_t beat;
  wire out = valid4 && !decision.job.to_list;
  always_ff @(posedge clk) begin
    taken5 <= out && !clear ? taken4 : 16'd0;
    if (valid4) begin
      next5 <= next4;
      page5 <= page4[29:6];
      for (int c = 0; c < HITS; ++c) begin
        at5[c] <= at4[hit_of4[c]] | page4[5:0];
        low5[c] <= low4[hit_of4[c]];
        high5[c] <= hit_of4[c][2] ? {16{negative4[{1'b1, hit_of4[c][1:0]}]}} : high4[hit_of4[c][1:0]];
      end
    end
    flush <= out && final4 && filled != 4'd0 && !clear;
    beat_valid <= ((out && completes4) || flush) && !clear;
    beat <= flush ? '{last: 1'b1, count: 5'(filled)} : '{last: final4 && filled == 4'd0, count: 5'd16};
  end

  // 6: the beats, a RAM a column; a FIFO has the counts of those that are complete.
  localparam int ROWS = 32;
  logic [$clog2(ROWS)-1:0] write_row, read_row;
  logic [15:0][31:0] ids, ranks;
  for (genvar j = 0; j < 16; ++j) begin : column
    ram_lut #(
        .WIDTH(62),
        .DEPTH(ROWS)
    ) hits (
        .clk,
        .we(taken5[j]),
        .waddr(next5[j] ? write_row + 1'b1 : write_row),
        .wdata({page5, at5[j%8], high5[j%8], low5[j%8]}),
        .raddr(read_row),
        .rdata({ids[j][29:0], ranks[j]})
    );
    assign ids[j][31:30] = 2'd0;
  end

  logic [$clog2(ROWS):0] level;
  /* verilator lint_off UNUSEDSIGNAL */
  logic beat_ready;  // the level leaves room
  /* verilator lint_on UNUSEDSIGNAL */
  logic next_valid;
  hit_beat_t next;
  wire next_ready = !hit_valid || hit_ready;
  fifo #(
      .WIDTH($bits(hit_beat_t)),
      .DEPTH(ROWS),
      .HAS_ROOM(1'b1)
  ) beats (
      .clk,
      .rst,
      .in_valid(beat_valid),
      .in_ready(beat_ready),
      .in_data(beat),
      .out_valid(next_valid),
      .out_ready(next_ready),
      .out_data(next),
      .level
  );
  always_ff @(posedge clk) begin
    room <= level < 6'd20;
    if (beat_valid) write_row <= write_row + 1'b1;
    if (next_ready) begin
      hit_valid <= next_valid;
      hit_beat <= next;
      hit_ids <= ids;
      hit_ranks <= ranks;
      if (next_valid) read_row <= read_row + 1'b1;
    end
    if (rst) begin
      hit_valid <= 1'b0;
      write_row <= '0;
      read_row <= '0;
    end
  end

  // Lists: the entries of a page come one after the other.
  /* verilator lint_off UNUSEDSIGNAL */  // done, twice and slot are those of the write
  list_write_t gathered;
  /* verilator lint_on UNUSEDSIGNAL */
  logic list_final, list_end;
  wire list_take = valid3 && decision.job.to_list;
  wire same_page = gathered.valid && gathered.lane == source3.lane && gathered.row == source3.row;
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
      gathered.lane <= source3.lane;
      gathered.row <= source3.row;
      gathered.mask <= same_page ? gathered.mask | mask3 : mask3;
    end
    if (rst || clear || list_final) gathered.valid <= 1'b0;
    gathered.done <= 1'b0;
    gathered.twice <= 1'b0;
    gathered.slot <= 1'b0;
  end

  // The end: two cycles after the last hit has its place; a cycle later all is out.
  logic ends;
  always_ff @(posedge clk) begin
    if (start) active <= decision.count != 24'd0;
    if (start) open <= decision.count != 24'd0;
    else if (pages_end) open <= 1'b0;
    ends <= (valid3 && final3 && active) || (start && decision.count == 24'd0);
    if (valid3 && final3) active <= 1'b0;
    done <= ends;
    if (rst || clear) begin
      active <= 1'b0;
      open <= 1'b0;
      ends <= 1'b0;
      done <= 1'b0;
    end
  end

`ifndef SYNTHESIS
  assert property (@(posedge clk) disable iff (rst || clear) valid3 |-> active && left >= 24'(kept));
`endif

endmodule
