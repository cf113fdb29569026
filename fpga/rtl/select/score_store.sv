// The two score banks of a lane: the lane's stream fills one while the other is swept and collected. Scores of a job
// behind the end of its bank go to the other one, where addresses from BANK_WORDS on lie. Such a job has both banks.
//
// A bank has BANK_WORDS words of 8 entries x G queries x 16 bits, a bit an entry that says whether it counts, and
// the places of words are those of their arrival: page after page, in a page pass after pass, in a pass word
// after word. A beat has S / G entries, or S / 2 rank codes of 32 bits. Of a job with `maxima` the bank holds what
// page_maxima sends, an entry a page. `rank_write` writes rank codes over a word.
//
// The job behind one with `maxima` is ranked: its bank gets rank codes alone, which sweep_unit makes as scores come.
// The scores go round in the other bank, which is free by then, and sweep_unit reads them there before the next round.
//
// Streams: scores in, a beat a cycle; they wait only while the bank to fill is not free, of a ranked job both. `filled`
// of a bank rises 5 cycles after its last score, of a ranked job with `ranks_done`, and ends with `take`; the bank is
// free again with `release_bank`. Two readers, one for sweeps and one for hits, which never use the same bank: latency
// 3 cycles, a word a cycle. The job behind one with `maxima` waits for its bank, so its scores come when the maxima are
// long stored.
// Scores leave registered as `beat` for the largest of each query.
//
// Holds what layout::Scores gives.
module score_store #(
    parameter int G = 4,
    parameter int S = 16,
    parameter int BANK_WORDS = 4096,
    localparam int ADDRESS = $clog2(BANK_WORDS),
    localparam int COUNT = ADDRESS + 10
) (
    input  logic                           clk,
    input  logic                           rst,
    input  logic                           score_valid,
    output logic                           score_ready,
    input  card_types::score_head_t        score_head,
    input  logic [S*16-1:0]                score_y,

    output logic                           beat_valid,
    output logic                           beat_bank,
    output logic                           beat_first,  // of a job
    output logic                           beat_ranked,
    output card_types::score_head_t        beat_head,
    output logic [S*16-1:0]                beat_y,
    input  logic                           maxima_valid,
    input  logic                           maxima_bank,
    input  logic [ADDRESS-1:0]             maxima_word,
    input  logic [2:0]                     maxima_entry,
    input  logic                           maxima_counts,
    input  logic [G-1:0][15:0]             maxima_y,

    output logic [1:0]                     filled,
    input  logic                           take,
    input  logic                           take_bank,
    input  logic                           release_valid,
    input  logic                           release_bank,
    input  logic                           ranks_done,  // of a ranked job
    input  logic                           ranks_bank,
    output logic [1:0][COUNT-1:0]          candidates,  // entries that count
    output logic [1:0][ADDRESS+3:0]        pages,
    output logic [1:0][ADDRESS+1:0]        held,       // pages, with `maxima` groups of 8

    input  logic                           sweep_read,
    input  logic                           sweep_bank,
    input  logic [ADDRESS:0]               sweep_address,
    output logic [7:0][G-1:0][15:0]        sweep_y,
    output logic [7:0]                     sweep_counts,
    input  logic                           rank_write,
    input  logic                           rank_bank,
    input  logic [ADDRESS:0]               rank_address,
    input  logic [7:0][G-1:0][15:0]        rank_data,

    input  logic                           hit_read,
    input  logic                           hit_bank,
    input  logic [ADDRESS:0]               hit_address,
    output logic [7:0][G-1:0][15:0]        hit_word
);

  localparam int E = S / G;  // entries of a beat
  localparam int PARTS = 8 / E;  // beats of a word

  // A bank is busy from its last score on.
  logic [1:0] busy;
  logic [1:0] doubled;  // the job of this bank has the other one, too
  logic fill_bank;
  logic first;
  logic ranked;
  logic over;  // the next score is the first one for the other bank
  assign score_ready = !busy[fill_bank] && !((first ? ranked : over) && busy[!fill_bank]);
  wire take_score = score_valid && score_ready;

  // The place of a beat: the next word after a page and pass or its last part. That of a ranked job goes round.
  logic [ADDRESS:0] next_word, word_behind;
  logic [ADDRESS-1:0] word;
  logic beat_to;
  wire part_last = score_head.page_last || (score_head.at[2:0] & 3'(PARTS - 1)) == 3'(PARTS - 1);
  wire word_ends = part_last && !score_head.none && !score_head.maxima;
  always_comb begin
    word_behind = next_word + (ADDRESS + 1)'(word_ends);
    if (ranked) word_behind[ADDRESS] = 1'b0;
  end

  always_ff @(posedge clk) begin
    beat_valid <= take_score && !rst;
    if (take_score) begin
      beat_bank <= fill_bank;
      beat_first <= first;
      beat_ranked <= ranked && !score_head.none;
      beat_head <= score_head;
      beat_y <= score_y;
      word <= ADDRESS'(next_word);
      beat_to <= fill_bank ^ ranked ^ next_word[ADDRESS];
      first <= score_head.last;
      next_word <= score_head.last ? '0 : word_behind;
      over <= word_ends && next_word == (ADDRESS + 1)'(BANK_WORDS - 1) && !ranked && !score_head.last;
      if (!first && over) begin
        busy[!fill_bank] <= 1'b1;
        doubled[fill_bank] <= 1'b1;
      end
    end
    if (take_score && score_head.last) begin
      busy[fill_bank] <= 1'b1;
      fill_bank <= !fill_bank;
      ranked <= score_head.maxima;
    end
    if (take_score && first && ranked && !score_head.none) busy[!fill_bank] <= 1'b1;
    if (release_valid) begin
      busy[release_bank] <= 1'b0;
      if (doubled[release_bank]) busy[!release_bank] <= 1'b0;
      doubled[release_bank] <= 1'b0;
    end
    if (ranks_done) busy[!ranks_bank] <= 1'b0;
    if (rst) begin
      busy <= 2'b00;
      doubled <= 2'b00;
      over <= 1'b0;
      next_word <= '0;
      fill_bank <= 1'b0;
      first <= 1'b1;
      ranked <= 1'b0;
    end
  end

  wire scored = beat_valid && !beat_head.none;
  wire store = scored && !beat_head.maxima;
  wire [2:0] part = beat_head.at[2:0] & 3'(PARTS - 1);

  // Entries and pages of a beat, then those of a bank so far, from 0 on when it was released.
  logic [3:0] counted, entries;
  logic ends_page, late_bank;
  always_comb begin
    counted = 4'd0;
    for (int e = 0; e < 8; ++e) counted = counted + 4'(beat_head.counts[e]);
  end
  always_ff @(posedge clk) begin
    entries <= scored && beat_head.pass == 4'd0 ? counted : 4'd0;
    ends_page <= scored && beat_head.pass == 4'd0 && beat_head.page_last;
    late_bank <= beat_bank;
    for (int b = 0; b < 2; ++b) begin
      if (late_bank == 1'(b)) begin
        candidates[b] <= candidates[b] + COUNT'(entries);
        pages[b] <= pages[b] + (ADDRESS + 4)'(ends_page);
      end
      if (rst || (release_valid && release_bank == 1'(b))) begin
        candidates[b] <= '0;
        pages[b] <= '0;
      end
    end
  end

  logic [1:0] grouped;  // with `maxima`
  logic [1:0] ends[4];  // of the last score's way to the bank and to the largest
  always_ff @(posedge clk) begin
    if (beat_valid && beat_first) grouped[beat_bank] <= beat_head.maxima;
    for (int b = 0; b < 2; ++b) begin
      held[b] <= (ADDRESS + 2)'(grouped[b] ? (pages[b] + (ADDRESS + 4)'(7)) >> 3 : pages[b]);
    end
    ends[0] <= {beat_bank, !beat_bank} & {2{beat_valid && beat_head.last && !beat_ranked}};
    for (int i = 1; i < 4; ++i) ends[i] <= ends[i-1];
    for (int b = 0; b < 2; ++b) begin
      if (ends[3][b] || (ranks_done && ranks_bank == 1'(b))) filled[b] <= 1'b1;
      else if (take && take_bank == 1'(b)) filled[b] <= 1'b0;
    end
    if (rst) begin
      filled <= 2'b00;
      for (int i = 0; i < 4; ++i) ends[i] <= 2'b00;
    end
  end

  // An entry of a word is filled with these. The first page of a word empties its other entries.
  logic [7:0] fill, fill_counts;
  logic [E-1:0][G*16-1:0] fill_y;
  wire [ADDRESS-1:0] fill_word = maxima_valid ? maxima_word : word;
  wire to_bank = maxima_valid ? maxima_bank : beat_to;
  always_comb begin
    for (int e = 0; e < 8; ++e) begin
      fill[e] = maxima_valid ? maxima_entry == 3'd0 || maxima_entry == 3'(e) : store && part == 3'(e / E);
      fill_counts[e] = maxima_valid ? maxima_counts && maxima_entry == 3'(e) : beat_head.counts[e%E];
    end
    for (int e = 0; e < E; ++e) fill_y[e] = maxima_valid ? maxima_y : beat_y[e*G*16+:G*16];
  end

  wire sweep_at = sweep_bank ^ sweep_address[ADDRESS];
  wire rank_to = rank_bank ^ rank_address[ADDRESS];
  wire hit_at = hit_bank ^ hit_address[ADDRESS];
  logic [1:0][7:0][G*16:0] data;
  for (genvar b = 0; b < 2; ++b) begin : bank
    // One writer and one reader at a time.
    wire ranks = rank_write && rank_to == 1'(b);
    wire swept = sweep_read && sweep_at == 1'(b);
    wire read = swept || (hit_read && hit_at == 1'(b));
    wire [ADDRESS-1:0] read_address = swept ? sweep_address[ADDRESS-1:0] : hit_address[ADDRESS-1:0];
    for (genvar e = 0; e < 8; ++e) begin : column
      ram_ultra #(
          .WIDTH(G * 16 + 1),
          .DEPTH(BANK_WORDS),
          .GRAIN(G * 16 + 1)
      ) memory (
          .clk,
          .we(ranks || (fill[e] && to_bank == 1'(b))),
          .waddr(ranks ? rank_address[ADDRESS-1:0] : fill_word),
          .wdata(ranks ? {1'b0, rank_data[e]} : {fill_counts[e], fill_y[e%E]}),
          .re(read),
          .raddr(read_address),
          .rdata(data[b][e])
      );
    end
`ifndef SYNTHESIS
    assert property (@(posedge clk) disable iff (rst) !(ranks && |fill && to_bank == 1'(b)));
    assert property (@(posedge clk) disable iff (rst) !(swept && hit_read && hit_at == 1'(b)));
`endif
  end

  // Banks that were read 2 cycles ago.
  logic [1:0] sweep_from, sweep_reads, hit_from, hit_reads;
  always_ff @(posedge clk) begin
    sweep_from  <= {sweep_from[0], sweep_at};
    sweep_reads <= {sweep_reads[0], sweep_read};
    hit_from    <= {hit_from[0], hit_at};
    hit_reads   <= {hit_reads[0], hit_read};
    if (sweep_reads[1]) begin
      for (int e = 0; e < 8; ++e) {sweep_counts[e], sweep_y[e]} <= data[sweep_from[1]][e];
    end
    if (hit_reads[1]) for (int e = 0; e < 8; ++e) hit_word[e] <= data[hit_from[1]][e][G*16-1:0];
  end

`ifndef SYNTHESIS
  assert property (@(posedge clk) disable iff (rst) !(maxima_valid && store));
  assert property (@(posedge clk) disable iff (rst) beat_valid && beat_first |-> candidates[beat_bank] == '0 &&
      pages[beat_bank] == '0);
`endif

  if (PARTS * E != 8 || E * G != S) $error("S / G must be 1, 2, 4 or 8");

endmodule
