// Finds a lane's hits in the rank codes of a bank: groups of up to 8 hits of one page, in rising order, then a
// group that says there are no more.
//
// Streams: commands; groups out. It reads 16 codes a cycle and passes over those without a hit; a code is a hit when it is
// above `code`, or equal to it while ties are not exhausted. Of codes of 32 bits it reads 8, which lie in two places each, a
// hit in the even one, and its groups have up to 4 hits. A hit takes a cycle. Groups wait in FIFOs, the pages and the hits
// apart, so that other lanes' groups may go first; when one is full the reading waits. `freed` pulses when the bank is read
// to its end or `clear` ends the reading. First group about 13 cycles after a command, which comes when the groups of the one
// before have `ended` or with `clear`. `row` of a listed job's page is read from `list_row`, a cycle after `list_read`.
//
// Equals the last loop of layout::TopK for one lane; the ties' quota over all lanes is hit_collector's.
module hit_finder #(
    parameter int CHANNELS = 2,
    parameter int G = 4,
    parameter int BANK_WORDS = 4096,
    localparam int ADDRESS = $clog2(BANK_WORDS),
    localparam int LIST = $clog2(BANK_WORDS / 2)
) (
    input  logic                           clk,
    input  logic                           rst,
    input  logic [4:0]                     lane_id,
    input  select_types::collect_command_t command,
    input  logic [1:0][ADDRESS+1:0]        pages,
    output logic                           freed,
    output logic                           freed_bank,
    output logic                           ended,       // its groups are in the FIFOs; falls with a start

    output logic                           read,
    output logic                           read_bank,
    output logic [ADDRESS:0]               read_address,  // from BANK_WORDS on in the other bank
    input  logic [8*G*16-1:0]              word,        // 3 cycles after `read`
    output logic                           list_read,   // beside `read`
    output logic                           list_slot,
    output logic [LIST-1:0]                list_page,
    input  logic [select_types::ROW-1:0]   list_row,

    output logic                           page_valid,
    input  logic                           page_ready,
    output select_types::hit_page_t        page_of_hits,
    input  logic                           body_take,   // of the first page that has not gone
    output select_types::hit_body_t        body
);
  import card_types::*;
  import select_types::*;

  localparam int LANES = $clog2(CHANNELS);
  localparam int STEPS = 8 * G / CODES;

  logic begins, clear, exhausted;
  /* verilator lint_off UNUSEDSIGNAL */  // start, clear and shape have registers of their own
  collect_command_t now;
  /* verilator lint_on UNUSEDSIGNAL */
  logic tokens, maxima, single;  // 16 codes are those of 16 pages of maxima, one page if single or tokens, else two
  logic [ROW-1:0] first_row;  // of the first page: the first one in which this lane's page is not before it
  always_ff @(posedge clk) begin
    begins <= command.start && !rst;
    clear <= command.clear || rst;
    exhausted <= command.exhausted;
    if (command.start) begin
      now <= command;
      tokens <= command.shape == SHAPE_TOKENS;
      maxima <= command.shape == SHAPE_MAXIMA;
      single <= command.wide || (command.sparse && command.shape != SHAPE_TOKENS);
      first_row <= ROW'((command.first_page + 24'(CHANNELS - 1) - 24'(lane_id)) >> LANES);
    end
    if (rst) now <= '0;
  end
  wire [ADDRESS+1:0] held = pages[now.bank];

  typedef struct packed {
    logic           valid;
    logic           last;
    logic           none;  // a lane without pages: reads nothing
    logic [1:0]     step;
    logic [2:0]     part;  // of a page of tokens
    logic [ROW-1:0] row;   // of its first page
  } tag_t;

  // 16 codes with a hit: those that are hits, and apart from them what a hit needs.
  typedef struct packed {
    logic             finish;
    logic [CODES-1:0] above;
    logic [CODES-1:0] equal;
  } mask_t;
  typedef struct packed {
    logic [2:0]             part;
    logic [ROW-1:0]         row;
    logic [CODES-1:0]       equal;
    logic [CODES-1:0][15:0] codes;
  } found_t;

  // Reads while the FIFO has room for all that is under way.
  localparam int DEPTH = 16;
  logic [$clog2(DEPTH):0] level;
  logic walking;
  logic [ADDRESS+2:0] steps_left;
  logic [ADDRESS:0] address;
  logic [1:0] step;
  logic [2:0] part;
  wire part_end = part == (now.wide ? 3'd7 : 3'd3);
  logic [ROW-1:0] row;
  logic [$clog2(CODES):0] rows;  // from 16 codes to the next ones, from a page of tokens to the next
  logic [LIST-1:0] page;
  wire walk = walking && level < ($clog2(DEPTH) + 1)'(DEPTH - 8);
  wire walk_end = steps_left <= (ADDRESS + 3)'(1);
  tag_t tag[5];  // the first one beside `read`, the last one beside `looked`

  always_ff @(posedge clk) begin
    freed <= 1'b0;
    rows <= ($clog2(CODES) + 1)'(maxima ? CODES : tokens || single ? 1 : 2);
    if (begins) begin
      walking <= 1'b1;
      if (single) steps_left <= tokens ? {held, 1'b0} << 2 : {1'b0, held};
      else steps_left <= tokens ? {1'b0, held} << 2 : (ADDRESS + 3)'((held + (ADDRESS + 2)'(1)) >> 1);
      address <= '0;
      step <= 2'd0;
      part <= 3'd0;
      row <= first_row;
      page <= '0;
    end else if (walk) begin
      walking <= !walk_end;
      freed <= walk_end;
      steps_left <= steps_left - (ADDRESS + 3)'(1);
      step <= step == 2'(STEPS - 1) ? 2'd0 : step + 2'd1;
      if (step == 2'(STEPS - 1)) address <= address + (ADDRESS + 1)'(1);
      part <= part_end ? 3'd0 : part + 3'd1;
      if (!tokens || part_end) row <= row + ROW'(rows);
      if (!tokens || part_end) page <= page + LIST'(1);
    end
    if (clear) begin
      walking <= 1'b0;
      freed <= walking && !rst;
    end
    read <= walk && steps_left != '0 && !clear;
    read_address <= address;
    list_page <= page;
    tag[0] <= '{
        valid: walk && !clear,
        last: walk_end,
        none: steps_left == '0,
        step: step,
        part: tokens ? part : 3'd0,
        row: row
    };
    tag[1] <= tag[0];
    tag[2] <= tag[1];
    if (now.listed) tag[2].row <= list_row;
    tag[3] <= tag[2];
    tag[4] <= tag[3];
    if (clear) begin
      for (int i = 1; i < 5; ++i) tag[i].valid <= 1'b0;
    end
  end
  assign read_bank = now.bank;
  assign freed_bank = now.bank;
  assign list_read = read;
  assign list_slot = now.list_slot;

  // Compares 16 codes, or 8 of 32 bits by their halves.
  logic [CODES-1:0][15:0] looked;
  logic [15:0] code_even, code_odd;
  always_ff @(posedge clk) begin
    looked <= word[int'(tag[3].step)*CODES*16+:CODES*16];
    code_even <= now.code[15:0];
    code_odd <= now.wide ? now.code[31:16] : now.code[15:0];
  end
  logic found_finish;
  logic [CODES-1:0] above;
  mask_t mask, next;
  found_t found, head;
  logic [CODES-1:0] over, same, is_above, is_equal;
  logic [CODES/4-1:0] any_above, any_equal;  // in fours
  always_comb begin
    for (int i = 0; i < CODES; ++i) begin
      over[i] = looked[i] > (i % 2 == 1 ? code_odd : code_even);
      same[i] = looked[i] == (i % 2 == 1 ? code_odd : code_even);
    end
    is_above = over;
    is_equal = same;
    if (now.wide) begin
      for (int i = 0; i < CODES; i += 2) begin
        is_above[i] = over[i+1] || (same[i+1] && over[i]);
        is_equal[i] = same[i+1] && same[i];
        is_above[i+1] = 1'b0;
        is_equal[i+1] = 1'b0;
      end
    end
  end
  assign mask = '{finish: found_finish, above: above, equal: found.equal};
  always_ff @(posedge clk) begin
    found_finish <= tag[4].valid && tag[4].last && !clear;
    found.part <= tag[4].part;
    found.row <= tag[4].row;
    found.codes <= looked;
    above <= is_above;
    found.equal <= is_equal;
    for (int f = 0; f < CODES / 4; ++f) begin
      any_above[f] <= |is_above[f*4+:4];
      any_equal[f] <= |is_equal[f*4+:4];
    end
    if (tag[4].none) begin
      above <= '0;
      found.equal <= '0;
    end
    if (!tag[4].valid || tag[4].none || clear) begin
      any_above <= '0;
      any_equal <= '0;
    end
  end

  logic next_valid, take_next, take_head;
  /* verilator lint_off UNUSEDSIGNAL */
  logic mask_ready, found_ready, head_valid;  // the level leaves room; a hit has its codes
  logic [$clog2(DEPTH):0] masks_level;
  /* verilator lint_on UNUSEDSIGNAL */
  wire store = found_finish || |any_above || (|any_equal && !exhausted);
  fifo #(
      .WIDTH($bits(mask_t)),
      .DEPTH(DEPTH),
      .HAS_ROOM(1'b1)
  ) mask_fifo (
      .clk,
      .rst(clear),
      .in_valid(store),
      .in_ready(mask_ready),
      .in_data(mask),
      .out_valid(next_valid),
      .out_ready(take_next),
      .out_data(next),
      .level(masks_level)
  );
  fifo_late #(
      .WIDTH($bits(found_t)),
      .DEPTH(DEPTH),
      .HAS_ROOM(1'b1)
  ) found_fifo (
      .clk,
      .rst(clear),
      .in_valid(store),
      .in_ready(found_ready),
      .in_data(found),
      .out_valid(head_valid),
      .out_ready(take_head),
      .out_data(head),
      .level
  );

  // Takes the hits of 16 codes one by one, in fours: the lowest of the first four that has one. Registers tell which
  // fours have one and more than one. The next 16 codes follow at once.
  localparam int FOURS = CODES / 4;
  logic group_room;
  logic busy, finish;
  logic [FOURS-1:0][3:0] live, fresh;
  logic [FOURS-1:0] any_of, more_of, first_of;
  logic [FOURS-1:0][1:0] place_of;
  logic [3:0] first_at;
  // Four bits without the lowest one that is set.
  function automatic logic [3:0] others(input logic [3:0] bits);
    others = {bits[3] && |bits[2:0], bits[2] && |bits[1:0], bits[1] && bits[0], 1'b0};
  endfunction
  always_comb begin
    for (int f = 0; f < FOURS; ++f) begin
      place_of[f] = {!live[f][0] && !live[f][1], !live[f][0] && (live[f][1] || !live[f][2])};
    end
    first_of = any_of & ~others(any_of);
    first_at = {first_of[3] || first_of[2], first_of[3] || first_of[1], 2'd0};
    for (int f = 0; f < FOURS; ++f) if (first_of[f]) first_at[1:0] = first_at[1:0] | place_of[f];
    fresh = next.above | (exhausted ? '0 : next.equal);
  end
  wire hit_last = more_of == '0 && others(any_of) == '0;
  wire ends = busy && group_room && hit_last;
  assign take_next = next_valid && (!busy || ends);

  logic hit_valid, hit_finish, code_valid, code_finish, code_equal, code_other;
  logic [3:0] hit_at, code_rows;  // code_rows: behind code_row
  logic [ROW-1:0] code_row;
  logic [5:0] code_at;
  logic [15:0] code, code_high;
  wire [3:0] hit_rows = maxima ? hit_at : {3'd0, !tokens && !single && hit_at[3]};
  always_ff @(posedge clk) begin
    hit_valid <= busy && group_room && any_of != '0 && !clear;
    hit_finish <= ends && finish && !clear;
    take_head <= ends && !clear;
    hit_at <= first_at;
    if (take_next) begin
      busy <= 1'b1;
      finish <= next.finish;
      live <= fresh;
      for (int f = 0; f < FOURS; ++f) begin
        any_of[f] <= |fresh[f];
        more_of[f] <= |others(fresh[f]);
      end
    end else if (group_room) begin
      busy <= busy && !hit_last;
      for (int f = 0; f < FOURS; ++f) begin
        if (first_of[f]) begin
          live[f] <= others(live[f]);
          any_of[f] <= more_of[f];
          more_of[f] <= |others(others(live[f]));
        end
      end
    end
    if (clear) busy <= 1'b0;
    // The head still stands.
    code_valid <= hit_valid && !clear;
    code_finish <= hit_finish && !clear;
    code_equal <= head.equal[hit_at];
    if (now.wide) code_at <= tokens ? {head.part, hit_at[3:1]} : {3'd0, hit_at[3:1]};
    else code_at <= tokens ? {head.part[1:0], hit_at} : {3'd0, maxima ? 3'd0 : hit_at[2:0]};
    code <= head.codes[hit_at];
    code_high <= head.codes[{hit_at[3:1], 1'b1}];
    if (hit_valid) begin
      code_row <= head.row;
      code_rows <= hit_rows;
      code_other <= head.row != code_row || hit_rows != code_rows;
    end
  end

  // Gathers hits of one page.
  hit_body_t gathered, sent;
  logic [ROW-1:0] gathered_row, sent_row;
  logic [3:0] gathered_count;
  logic sent_valid, sent_finish, finish_next;
  wire other = code_valid && (code_other || gathered_count == (now.wide ? 4'(HITS / 2) : 4'(HITS)));
  wire flush = gathered_count != 4'd0 && (other || finish_next);
  wire [2:0] place = other ? 3'd0 : gathered_count[2:0];
  always_ff @(posedge clk) begin
    finish_next <= code_finish && !clear;
    sent_valid <= (flush || (finish_next && gathered_count == 4'd0)) && !clear;
    sent <= gathered;
    sent_row <= gathered_row;
    sent_finish <= !flush;
    if (code_valid) begin
      if (place == 3'd0) gathered.valid <= '0;
      if (place == 3'd0) gathered.equal <= '0;
      gathered_row <= code_row + ROW'(code_rows);
      gathered.valid[place] <= 1'b1;
      gathered.equal[place] <= code_equal;
      gathered.at[place] <= code_at;
      gathered.code[place] <= code;
      if (now.wide) gathered.code[{1'b1, place[1:0]}] <= code_high;
      gathered_count <= other ? 4'd1 : gathered_count + 4'd1;
    end
    // The last hits leave first, then the end.
    if (finish_next) begin
      gathered_count <= 4'd0;
      finish_next <= gathered_count != 4'd0 && !clear;
    end
    if (clear) gathered_count <= 4'd0;
    if (command.start || rst) ended <= 1'b0;
    else if (sent_valid && sent_finish) ended <= 1'b1;
  end

  // Pages may be far ahead of their hits, which leave when the merge tree has let the page through.
  localparam int GROUPS = 32;
  /* verilator lint_off UNUSEDSIGNAL */
  logic sent_ready, body_ready, body_valid;  // the level leaves room; a page has its hits
  logic [$clog2(GROUPS):0] pages_level;
  /* verilator lint_on UNUSEDSIGNAL */
  logic [$clog2(GROUPS):0] sent_level;
  logic page_finish;
  logic [ROW-1:0] page_row;
  fifo_late #(
      .WIDTH(1 + ROW),
      .DEPTH(GROUPS),
      .HAS_ROOM(1'b1)
  ) page_fifo (
      .clk,
      .rst(clear),
      .in_valid(sent_valid),
      .in_ready(sent_ready),
      .in_data({sent_finish, sent_row}),
      .out_valid(page_valid),
      .out_ready(page_ready),
      .out_data({page_finish, page_row}),
      .level(pages_level)
  );
  assign page_of_hits = '{finish: page_finish, row: page_row, lane: lane_id};
  fifo_late #(
      .WIDTH($bits(hit_body_t)),
      .DEPTH(GROUPS),
      .HAS_ROOM(1'b1)
  ) body_fifo (
      .clk,
      .rst(clear),
      .in_valid(sent_valid && !sent_finish),
      .in_ready(body_ready),
      .in_data(sent),
      .out_valid(body_valid),
      .out_ready(body_take),
      .out_data(body),
      .level(sent_level)
  );
  always_ff @(posedge clk) group_room <= sent_level < ($clog2(GROUPS) + 1)'(GROUPS - 8);

`ifndef SYNTHESIS
  assert property (@(posedge clk) disable iff (rst || clear) hit_valid |-> head_valid);
  assert property (@(posedge clk) disable iff (rst || clear) body_take |-> body_valid);
`endif
endmodule
