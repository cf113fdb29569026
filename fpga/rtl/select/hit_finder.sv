// Finds a lane's hits in the rank codes of a bank: groups of up to 8 hits of one page, in rising order, then a
// group that says there are no more.
//
// Streams: commands; groups out. It reads 16 codes a cycle and passes over those without a hit; a code is a hit when
// it is above `code`, or equal to it while ties are not exhausted. Of codes of 32 bits it reads 8, which lie in two
// places each, a hit in the even one, and its groups have up to 4 hits. A hit takes a cycle, 16 codes with hits two
// more. Groups wait in a FIFO, so that other lanes' groups may go first; when it is full the reading waits. `freed`
// pulses when the bank is read to its end or `clear` ends the reading. First group about 12 cycles after a command.
// `row` of a listed job's page is read from `list_row`, a cycle after `list_read`.
//
// Equals the last loop of layout::TopK for one lane; the ties' quota over all lanes is hit_collector's.
module hit_finder #(
    parameter int CHANNELS = 2,
    parameter int LANE = 0,
    parameter int G = 4,
    parameter int BANK_WORDS = 4096,
    localparam int ADDRESS = $clog2(BANK_WORDS),
    localparam int LIST = $clog2(BANK_WORDS / 8)
) (
    input  logic                           clk,
    input  logic                           rst,
    input  select_types::collect_command_t command,
    input  logic [1:0][ADDRESS:0]          pages,       // of SHAPE_MAXIMA groups of 8
    output logic                           freed,
    output logic                           freed_bank,

    output logic                           read,
    output logic                           read_bank,
    output logic [ADDRESS-1:0]             read_address,
    input  logic [8*G*16-1:0]              word,        // 3 cycles after `read`
    output logic                           list_read,   // beside `read`
    output logic                           list_slot,
    output logic [LIST-1:0]                list_page,
    input  logic [select_types::ROW-1:0]   list_row,

    output logic                           group_valid,
    input  logic                           group_ready,
    output select_types::hit_group_t       group
);

  import card_types::*;
  import select_types::*;

  localparam int LANES = $clog2(CHANNELS);
  localparam int STEPS = 8 * G / CODES;

  logic begins, clear, exhausted;
  /* verilator lint_off UNUSEDSIGNAL */  // start and clear have registers of their own
  collect_command_t now;
  /* verilator lint_on UNUSEDSIGNAL */
  always_ff @(posedge clk) begin
    begins <= command.start && !rst;
    clear <= command.clear || rst;
    exhausted <= command.exhausted;
    if (command.start) now <= command;
    if (rst) now <= '0;
  end
  wire tokens = now.shape == SHAPE_TOKENS;
  wire maxima = now.shape == SHAPE_MAXIMA;  // 16 codes are those of 16 pages
  wire [ADDRESS:0] held = pages[now.bank];

  // The first page's row: lanes before that of first_page begin a row later.
  logic [23:0] lanes_before;
  assign lanes_before = now.first_page & 24'(CHANNELS - 1);
  wire [ROW-1:0] first_row = ROW'(now.first_page >> LANES) + ROW'(24'(LANE) < lanes_before);

  typedef struct packed {
    logic           valid;
    logic           last;
    logic           none;  // a lane without pages: reads nothing
    logic [1:0]     step;
    logic [2:0]     part;  // of a page of tokens
    logic [ROW-1:0] row;   // of its first page
  } tag_t;

  typedef struct packed {
    logic                   finish;
    logic [2:0]             part;
    logic [ROW-1:0]         row;
    logic [CODES-1:0]       above;
    logic [CODES-1:0]       equal;
    logic [CODES-1:0][15:0] codes;
  } found_t;

  // Reads while the FIFO has room for all that is under way.
  localparam int DEPTH = 16;
  logic [$clog2(DEPTH):0] level;
  logic walking;
  logic [ADDRESS+1:0] steps_left;
  logic [ADDRESS-1:0] address;
  logic [1:0] step;
  logic [2:0] part;
  wire part_end = part == (now.wide ? 3'd7 : 3'd3);
  logic [ROW-1:0] row;
  logic [LIST-1:0] page;
  wire walk = walking && level < ($clog2(DEPTH) + 1)'(DEPTH - 7);
  wire walk_end = steps_left <= (ADDRESS + 2)'(1);
  tag_t tag[4];

  always_ff @(posedge clk) begin
    freed <= 1'b0;
    if (begins) begin
      walking <= 1'b1;
      if (now.wide) steps_left <= tokens ? {held, 1'b0} << 2 : {1'b0, held};
      else steps_left <= tokens ? {1'b0, held} << 2 : (ADDRESS + 2)'((held + (ADDRESS + 1)'(1)) >> 1);
      address <= '0;
      step <= 2'd0;
      part <= 3'd0;
      row <= first_row;
      page <= '0;
    end else if (walk) begin
      walking <= !walk_end;
      freed <= walk_end;
      steps_left <= steps_left - (ADDRESS + 2)'(1);
      step <= step == 2'(STEPS - 1) ? 2'd0 : step + 2'd1;
      if (step == 2'(STEPS - 1)) address <= address + ADDRESS'(1);
      part <= part_end ? 3'd0 : part + 3'd1;
      if (!tokens) row <= row + (maxima ? ROW'(CODES) : now.wide ? ROW'(1) : ROW'(2));
      else if (part_end) row <= row + ROW'(1);
      if (part_end) page <= page + LIST'(1);
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
    if (clear) begin
      for (int i = 1; i < 4; ++i) tag[i].valid <= 1'b0;
    end
  end
  assign read_bank = now.bank;
  assign freed_bank = now.bank;
  assign list_read = read;
  assign list_slot = now.list_slot;

  // Compares 16 codes, or 8 of 32 bits by their halves.
  logic [CODES-1:0][15:0] looked;
  assign looked = word[int'(tag[3].step)*CODES*16+:CODES*16];
  logic found_valid;
  found_t found, head;
  logic [CODES-1:0] over, same;
  always_comb begin
    for (int i = 0; i < CODES; ++i) begin
      over[i] = looked[i] > (i % 2 == 1 && now.wide ? now.code[31:16] : now.code[15:0]);
      same[i] = looked[i] == (i % 2 == 1 && now.wide ? now.code[31:16] : now.code[15:0]);
    end
  end
  always_ff @(posedge clk) begin
    found_valid <= tag[3].valid && !clear;
    found.finish <= tag[3].last;
    found.part <= tag[3].part;
    found.row <= tag[3].row;
    found.codes <= looked;
    for (int i = 0; i < CODES; ++i) begin
      found.above[i] <= over[i] && !tag[3].none;
      found.equal[i] <= same[i] && !tag[3].none;
    end
    if (now.wide) begin
      for (int i = 0; i < CODES; i += 2) begin
        found.above[i] <= (over[i+1] || (same[i+1] && over[i])) && !tag[3].none;
        found.equal[i] <= same[i+1] && same[i] && !tag[3].none;
        found.above[i+1] <= 1'b0;
        found.equal[i+1] <= 1'b0;
      end
    end
  end

  logic head_valid, take_head;
  /* verilator lint_off UNUSEDSIGNAL */
  logic found_ready;  // the level leaves room
  /* verilator lint_on UNUSEDSIGNAL */
  wire any = |found.above || (|found.equal && !exhausted);
  fifo #(
      .WIDTH($bits(found_t)),
      .DEPTH(DEPTH)
  ) found_fifo (
      .clk,
      .rst(clear),
      .in_valid(found_valid && (any || found.finish)),
      .in_ready(found_ready),
      .in_data(found),
      .out_valid(head_valid),
      .out_ready(take_head),
      .out_data(head),
      .level
  );

  // Takes the hits of the FIFO's head one by one; it leaves a cycle after its last hit.
  logic group_room;
  logic busy;
  logic [CODES-1:0] above, equal;
  wire [CODES-1:0] live = above | (exhausted ? '0 : equal);
  wire [CODES-1:0] lowest = live & (~live + CODES'(1));
  wire take_hit = busy && group_room && live != '0;
  logic hit_valid, hit_finish, hit_equal, code_valid, code_finish, code_equal;
  logic [3:0] hit_at;
  logic [ROW-1:0] code_row;
  logic [5:0] code_at;
  logic [15:0] code, code_high;
  always_ff @(posedge clk) begin
    take_head <= 1'b0;
    hit_valid <= take_hit && !clear;
    hit_finish <= 1'b0;
    hit_equal <= (lowest & equal) != '0;
    for (int b = 0; b < 4; ++b) begin
      hit_at[b] <= 1'b0;
      for (int i = 0; i < CODES; ++i) if (i[b] && lowest[i]) hit_at[b] <= 1'b1;
    end
    if (!busy) begin
      busy <= head_valid && !take_head;
      above <= head.above;
      equal <= head.equal;
    end else if (group_room) begin
      above <= above & ~lowest;
      equal <= equal & ~lowest;
      if ((live & ~lowest) == '0) begin
        busy <= 1'b0;
        take_head <= 1'b1;
        hit_finish <= head.finish && !clear;
      end
    end
    if (clear) begin
      busy <= 1'b0;
      take_head <= 1'b0;
    end

    // The head still stands.
    code_valid <= hit_valid && !clear;
    code_finish <= hit_finish && !clear;
    code_equal <= hit_equal;
    code_row <= head.row + (maxima ? ROW'(hit_at) : ROW'(!tokens && !now.wide && hit_at[3]));
    if (now.wide) code_at <= tokens ? {head.part, hit_at[3:1]} : {3'd0, hit_at[3:1]};
    else code_at <= tokens ? {head.part[1:0], hit_at} : {3'd0, maxima ? 3'd0 : hit_at[2:0]};
    code <= head.codes[hit_at];
    code_high <= head.codes[{hit_at[3:1], 1'b1}];
  end

  // Gathers hits of one page.
  hit_group_t gathered, sent;
  logic [3:0] gathered_count;
  logic sent_valid, finish_next;
  wire other = code_valid && (gathered.row != code_row || gathered_count == (now.wide ? 4'(HITS / 2) : 4'(HITS)));
  wire flush = gathered_count != 4'd0 && (other || finish_next);
  wire [2:0] place = other ? 3'd0 : gathered_count[2:0];
  always_ff @(posedge clk) begin
    finish_next <= code_finish && !clear;
    sent_valid <= (flush || (finish_next && gathered_count == 4'd0)) && !clear;
    sent <= gathered;
    sent.finish <= !flush;
    if (code_valid) begin
      if (place == 3'd0) gathered.valid <= '0;
      gathered.row <= code_row;
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
    gathered.finish <= 1'b0;
    gathered.lane <= 5'(LANE);
    if (clear) gathered_count <= 4'd0;
  end

  /* verilator lint_off UNUSEDSIGNAL */
  logic sent_ready;  // the level leaves room
  /* verilator lint_on UNUSEDSIGNAL */
  logic [4:0] sent_level;
  fifo #(
      .WIDTH($bits(hit_group_t)),
      .DEPTH(16)
  ) group_fifo (
      .clk,
      .rst(clear),
      .in_valid(sent_valid),
      .in_ready(sent_ready),
      .in_data(sent),
      .out_valid(group_valid),
      .out_ready(group_ready),
      .out_data(group),
      .level(sent_level)
  );
  always_ff @(posedge clk) group_room <= sent_level < 5'd8;

`ifndef SYNTHESIS
  assert property (@(posedge clk) disable iff (rst) found_valid |-> found_ready);
  assert property (@(posedge clk) disable iff (rst) sent_valid |-> sent_ready);
`endif

endmodule
