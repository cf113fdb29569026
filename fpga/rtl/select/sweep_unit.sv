// Sweeps a lane's bank: once over its scores, to make rank codes of them and count their first digit, then once
// a further digit over the codes.
//
// Streams: commands; a sweep of the scores reads a word (8 entries, one pass) a cycle, for the sum of exp2 each 8
// cycles; one of the codes reads 16 a cycle, 8 of 32 bits.
// `done` falls a cycle after a command and rises when all is counted, about 13 cycles after the last word is read.
// Rank codes go over the scores densely: word r holds the codes of the words of entries G * r to G * r + G - 1, of
// half as many with codes of 32 bits, and is never ahead of the words that are still to be read. A page of a ranked job
// that has fewer entries than 16 takes the room of 16, so that each step of a list is one page. `bin_shift` and
// `bin`: see digit_counter. `total`: see exp2_unit, of the last sweep of scores. Nothing stalls it.
//
// Scores of a ranked job (score_store) are read from the other bank, a page as soon as it is there, and their codes go to
// the job's bank: plain, of_page, group_last and pass_last are those of the last command, largest scores the last ones
// written. No
// command comes meanwhile. `ranks_done` comes with the last codes. A page is read faster than it is filled.
//
// Equals layout::Ranks, and the counting passes of layout::TopK with digits of 4 bits.
module sweep_unit #(
    parameter int G = 4,
    parameter int BANK_WORDS = 4096,
    localparam int ADDRESS = $clog2(BANK_WORDS),
    localparam int COUNT = ADDRESS + 6
) (
    input  logic                         clk,
    input  logic                         rst,
    input  select_types::sweep_command_t command,
    input  select_types::best_write_t    best,
    input  logic [1:0][ADDRESS+1:0]      pages,        // of SHAPE_MAXIMA groups of 8
    input  logic                         bin_shift,
    output logic [COUNT-1:0]             bin,
    output logic [select_types::TOTAL-1:0] total,
    output logic                         done,

    input  logic                         beat_valid,  // of a ranked job
    input  logic                         beat_first,
    input  logic                         beat_bank,
    /* verilator lint_off UNUSEDSIGNAL */  // scores are score_store's
    input  card_types::score_head_t      beat_head,
    /* verilator lint_on UNUSEDSIGNAL */
    output logic                         ranks_done,

    output logic                         read,
    output logic                         read_bank,
    output logic [ADDRESS:0]             read_address,  // from BANK_WORDS on in the other bank
    input  logic [8*G*16-1:0]            word,         // 3 cycles after `read`
    input  logic [7:0]                   word_counts,
    output logic                         rank_write,
    output logic                         rank_bank,
    output logic [ADDRESS:0]             rank_address,  // as read_address
    output logic [8*G*16-1:0]            rank_data
);

  import card_types::*;
  import select_types::*;

  localparam int QUERY = $clog2(G);
  localparam int STEPS = 8 * G / CODES;  // of a word of codes

  /* verilator lint_off UNUSEDSIGNAL */  // start and tells have done it
  sweep_command_t now;
  /* verilator lint_on UNUSEDSIGNAL */
  logic tokens, exp2;  // exp2: of a sweep of the scores
  always_ff @(posedge clk) begin
    if (command.start || command.tells) begin
      now <= command;
      tokens <= command.shape == SHAPE_TOKENS;
      exp2 <= command.scores && command.exp2;
    end else if (beat_valid && beat_first) begin
      now.scores <= 1'b1;
      now.shape <= now.of_page;
      now.bank <= !beat_bank;
      tokens <= now.of_page == SHAPE_TOKENS;
      exp2 <= now.exp2;
    end
    if (rst) now <= '0;
  end

  // Pages of a ranked job that are there and not yet read, and whether more come.
  logic ranking, ranking_begins, all_there;
  logic [1:0] there;
  logic page_there, page_read;
  assign page_there = beat_valid && beat_head.page_last && beat_head.pass == now.pass_last;
  always_ff @(posedge clk) begin
    ranking_begins <= beat_valid && beat_first && !rst;
    there <= there + 2'(page_there) - 2'(page_read && ranking);
    if (beat_valid) all_there <= beat_head.last;
    if (beat_valid && beat_first) ranking <= 1'b1;
    else if (ranks_done) ranking <= 1'b0;
    if (rst) begin
      there <= 2'd0;
      ranking <= 1'b0;
    end
  end
  wire sparse = now.sparse && !tokens;

  // Walks over the words: of a sweep of the scores page by page, word by word, pass by pass.
  logic begins, walking;
  logic [ADDRESS+1:0] pages_left;
  logic [ADDRESS:0] page_base;
  logic [2:0] at_word;
  logic [3:0] pass;
  logic [ADDRESS:0] address;
  logic [ADDRESS+2:0] steps_left;
  logic [1:0] step;
  logic [2:0] pace;  // of reads for the sum of exp2
  wire walk = walking && (pace == '0 || !exp2) && (there != 2'd0 || !ranking);
  wire pass_end = pass == now.pass_last;
  wire page_end = pass_end && (!tokens || at_word == 3'd7);
  wire [4:0] passes = 5'(now.pass_last) + 5'd1;
  logic [ADDRESS:0] stride;
  wire last_page = ranking ? all_there && there == 2'd1 : pages_left == (ADDRESS + 2)'(1);
  wire walk_end = now.scores ? page_end && last_page : steps_left == (ADDRESS + 3)'(1);
  wire [ADDRESS:0] next_base = page_base + stride;
  wire [ADDRESS+1:0] held = pages[now.bank];
  assign page_read = walk && page_end;

  typedef struct packed {
    logic       valid;
    logic       first_pass;
    logic       last_pass;
    logic       last;
    logic [3:0] pass;
    logic [1:0] step;
  } tag_t;
  tag_t tag[4];  // the first one beside `read`, the last one beside `word`

  always_ff @(posedge clk) begin
    begins <= command.start && !rst;
    stride <= tokens ? (ADDRESS + 1)'({passes, 3'd0}) : (ADDRESS + 1)'(passes);
    if (begins || ranking_begins) begin
      walking <= held != '0 || ranking_begins;
      pages_left <= held;
      if (now.wide || sparse) steps_left <= tokens ? {held, 1'b0} << 2 : {1'b0, held};
      else steps_left <= tokens ? {1'b0, held} << 2 : (ADDRESS + 3)'((held + (ADDRESS + 2)'(1)) >> 1);
      page_base <= '0;
      at_word <= 3'd0;
      pass <= 4'd0;
      address <= '0;
      step <= 2'd0;
      pace <= '0;
    end else if (!walk) begin
      pace <= pace + 1'b1;
    end else begin
      pace <= pace + 1'b1;
      walking <= !walk_end;
      steps_left <= steps_left - (ADDRESS + 3)'(1);
      if (!now.scores) begin
        step <= step == 2'(STEPS - 1) ? 2'd0 : step + 2'd1;
        if (step == 2'(STEPS - 1)) address <= address + (ADDRESS + 1)'(1);
      end else if (!pass_end) begin
        pass <= pass + 4'd1;
        address <= address + (ADDRESS + 1)'(tokens ? 8 : 1);
      end else begin
        pass <= 4'd0;
        at_word <= at_word + 3'(tokens);
        address <= page_base + (ADDRESS + 1)'(at_word) + (ADDRESS + 1)'(1);
        if (page_end) begin
          page_base <= next_base;
          address <= next_base;
          pages_left <= pages_left - (ADDRESS + 2)'(1);
        end
      end
    end
    if (rst) walking <= 1'b0;

    read <= walk && !rst;
    // It stands until the next read, as the word does.
    if (walk) read_address <= {address[ADDRESS] && !ranking, address[ADDRESS-1:0]};
    tag[0] <= '{
        valid: walk && !rst,
        first_pass: pass == 4'd0,
        last_pass: pass_end,
        last: walk_end,
        pass: pass,
        step: step
    };
    for (int i = 1; i < 4; ++i) begin
      tag[i] <= tag[i-1];
      if (rst) tag[i].valid <= 1'b0;
    end
  end
  assign read_bank = now.bank;

  // The largest scores of the queries of a word's pass.
  logic [G-1:0][15:0] of_pass, best_of_word;
  logic [G-1:0] queries;
  for (genvar g = 0; g < G; ++g) begin : of_query
    ram_lut #(
        .WIDTH(16),
        .DEPTH(16)
    ) largest (
        .clk,
        .we(best.valid && best.query[QUERY-1:0] == QUERY'(g)),
        .waddr(4'(best.query >> QUERY)),
        .wdata(best.value),
        .raddr(tag[2].pass),
        .rdata(of_pass[g])
    );
  end
  always_ff @(posedge clk) begin
    // They stand until the next word, as the word does.
    if (tag[2].valid) begin
      best_of_word <= of_pass;
      for (int g = 0; g < G; ++g) queries[g] <= 6'({tag[2].pass, QUERY'(g)}) <= now.group_last;
    end
  end

  // Entries of a word that the shape has.
  wire [7:0] of_shape = tokens || now.shape == SHAPE_MAXIMA ? 8'hFF : now.shape == SHAPE_PARTS ? 8'h0F : 8'h01;
  logic narrow_valid, narrow_last, wide_valid, wide_last;
  logic [7:0][15:0] narrow;
  logic [31:0] wide;
  rank_unit #(
      .G(G)
  ) rank_unit (
      .clk,
      .rst,
      .plain(now.plain),
      .valid(tag[3].valid && now.scores && !exp2),
      .first_pass(tag[3].first_pass),
      .last_pass(tag[3].last_pass),
      .last(tag[3].last),
      .queries,
      .counts(word_counts & of_shape),
      .best(best_of_word),
      .y(word),
      .out_valid(narrow_valid),
      .out_last(narrow_last),
      .codes(narrow)
  );

  exp2_unit #(
      .G(G)
  ) exp2_unit (
      .clk,
      .rst,
      .clear(begins && now.scores),
      .valid(tag[3].valid && exp2),
      .first_pass(tag[3].first_pass),
      .last_pass(tag[3].last_pass),
      .last(tag[3].last),
      .queries,
      .counts(word_counts & of_shape),
      .best(best_of_word),
      .y(word),
      .out_valid(wide_valid),
      .out_last(wide_last),
      .code(wide),
      .total
  );
  wire ranks_valid = narrow_valid || wide_valid;
  wire ranks_last = now.wide ? wide_last : narrow_last;

  // Codes of G words in one, of G / 2 with codes of 32 bits, which come one by one; zeros where the last has fewer.
  logic [QUERY+1:0] place;  // of 32 bits
  logic [4*G-1:0][31:0] dense;
  wire apart = ranking && !tokens;
  wire full = (place[QUERY+1:2] | QUERY'(apart)) == '1 && (place[1:0] == 2'd3 || !now.wide);
  always_ff @(posedge clk) begin
    if (ranks_valid) begin
      if (place == '0) dense <= '0;
      for (int i = 0; i < 4 * G; ++i) begin
        if (place[QUERY+1:2] == QUERY'(i / 4) && (place[1:0] == 2'(i % 4) || !now.wide)) begin
          dense[i] <= now.wide ? wide : narrow[2*(i%4)+:2];
        end
      end
      place <= place + (now.wide ? (QUERY + 2)'(1) : (QUERY + 2)'(apart ? 8 : 4));
    end
    rank_write <= ranks_valid && (ranks_last || full) && !rst;
    if (rank_write) rank_address <= rank_address + (ADDRESS + 1)'(1);
    ranks_done <= ranking && ranks_valid && ranks_last && !rst;
    if (rst || begins || ranking_begins) begin
      place <= '0;
      rank_address <= '0;
    end
  end
  assign rank_bank = now.bank ^ ranking;
  assign rank_data = dense;

  // Counted codes: the new ranks, or 16 codes of a word.
  logic codes_valid, codes_last;
  logic [CODES-1:0][15:0] codes;
  always_ff @(posedge clk) begin
    codes_valid <= ((ranks_valid && !ranking) || (tag[3].valid && !now.scores)) && !rst;
    codes_last <= now.scores ? ranks_last : tag[3].last;
    codes <= word[int'(tag[3].step)*CODES*16+:CODES*16];
    if (now.scores) begin
      codes <= '0;
      codes[7:0] <= narrow;
      if (now.wide) codes[7:0] <= {96'd0, wide};
    end
  end

  logic counted;
  digit_counter #(
      .COUNT(COUNT)
  ) digit_counter (
      .clk,
      .rst,
      .valid(codes_valid),
      .last(codes_last),
      .codes,
      .wide(now.wide),
      .digit(now.digit),
      .known(now.known),
      .shift(bin_shift),
      .top(bin),
      .done(counted)
  );

  always_ff @(posedge clk) begin
    if (command.start) done <= 1'b0;
    else if (counted || (begins && held == '0)) done <= 1'b1;
    if (rst) done <= 1'b0;
  end

`ifndef SYNTHESIS
  assert property (@(posedge clk) disable iff (rst) page_there |-> there != 2'd3);
  assert property (@(posedge clk) disable iff (rst) !(command.start && (ranking || beat_valid)));
`endif

  if (G < 2 || G > 8) $error("a word holds one to four times 16 codes");

endmodule
