// The base's part of y for each page and pass: layout::ScoreTerm of the base's dot product, its scale and the
// octave of its scale, for G queries.
//
// Streams: items of code formats; y of G queries, an item each, in order. Reads bases from page_buffer (those
// of a page again for each pass), codes as table_control copies them, parameters from query_store. Latency:
// dim / 8 + 15 + G cycles; an item each dim / 8 cycles. Stalls: a base that is not there, tables that are not
// built, 8 items of y that wait.
module base_path
  import card_types::*;
  import scan_types::*;
#(
    parameter int G = 4
) (
    input  logic                          clk,
    input  logic                          rst,
    input  logic                          form_we,
    input  logic [  1:0]                  form_slot,
    // Each stage keeps what it needs of a job, and of an item.
    // verilator lint_off UNUSEDSIGNAL
    input  form_t                         form,
    input  logic                          item_valid,
    output logic                          item_ready,
    input  item_t                         item,
    // verilator lint_on UNUSEDSIGNAL
    input  logic                          code_we,
    input  logic                          code_bank,
    input  logic [  1:0]                  code_segment,
    input  logic [  1:0]                  code_word,
    input  logic [G-1:0][15:0][7:0]       codes,
    input  logic [  1:0]                  full,
    output logic                          release_valid,
    output logic                          release_bank,
    input  logic [  5:0]                  base_written,
    output logic [  4:0]                  base_at,
    input  logic [511:0]                  base,
    output logic                          base_freed,
    output logic [  4:0]                  scale_slot,
    input  logic [  7:0]                  scale,
    output logic [  4:0]                  param_at,
    input  logic [G-1:0][15:0]            multiplier,
    input  logic [G-1:0][ 7:0]            shift,
    output logic                          y_valid,
    input  logic                          y_ready,
    output logic [G-1:0][15:0]            y
);
  localparam int LOG = G == 1 ? 1 : $clog2(G);

  logic [1:0] merge;
  ram_lut #(
      .WIDTH(2),
      .DEPTH(4)
  ) merges (
      .clk,
      .we(form_we),
      .waddr(form_slot),
      .wdata(form.merge),
      .raddr(item.job),
      .rdata(merge)
  );

  // 8 steps a beat of the base: words of codes, and both halves of each.
  logic running, start, step, step_last, item_last, half;
  logic [1:0] segment, word;
  logic [5:0] read, page_start;  // beats
  logic [3:0] room;  // items of y
  assign start = item_valid && !running && full[item.bank] && room != '0;
  assign step = running && read != base_written;
  assign step_last = half && word == 2'd3;
  assign item_last = step && step_last && 3'(segment) == segment_last(merge);
  assign item_ready = item_last;
  assign release_valid = item_last && item.free_bank;
  assign release_bank = item.bank;
  assign base_at = read[4:0];

  always_ff @(posedge clk) begin
    if (rst) begin
      running <= 1'b0;
      read <= '0;
      page_start <= '0;
      room <= 4'd8;
      base_freed <= 1'b0;
    end else begin
      if (start) running <= 1'b1;
      else if (item_last) running <= 1'b0;
      room <= room - 4'(start) + 4'(y_valid && y_ready);
      if (step && step_last) read <= item_last && !item.last_pass ? page_start : read + 6'd1;
      if (item_last && item.last_pass) page_start <= read + 6'd1;
      base_freed <= step && step_last && item.last_pass;
    end
    if (start) begin
      {segment, word, half} <= '0;
    end else if (step) {segment, word, half} <= {segment, word, half} + 5'd1;
  end

  logic [7:0][7:0] base_now, base_held;
  logic [G-1:0][7:0][7:0] codes_now, codes_held;
  always_comb begin
    for (int i = 0; i < 8; ++i) base_now[i] = base[8*(4*(8*32'(half)+i)+32'(word))+:8];
  end
  for (genvar g = 0; g < G; ++g) begin : g_query
    logic [1:0][7:0][7:0] words;
    ram_lut #(
        .WIDTH(128),
        .DEPTH(32)
    ) code (
        .clk,
        .we(code_we),
        .waddr({code_bank, code_segment, code_word}),
        .wdata(codes[g]),
        .raddr({item.bank, segment, word}),
        .rdata(words)
    );
    assign codes_now[g] = words[half];
  end
  logic dot_valid, dot_first, dot_last;
  always_ff @(posedge clk) begin
    dot_valid <= step && !rst;
    dot_first <= {segment, word, half} == '0;
    dot_last <= item_last;
    base_held <= base_now;
    codes_held <= codes_now;
  end
  logic dot_done;
  logic [G-1:0][23:0] dots, dots_held;
  base_dot #(
      .G(G)
  ) dot (
      .clk,
      .rst,
      .valid(dot_valid),
      .first(dot_first),
      .last(dot_last),
      .codes(codes_held),
      .base(base_held),
      .done(dot_done),
      .dots
  );

  // Scores: a query a cycle.
  typedef struct packed {
    logic [1:0] job;
    logic [4:0] slot;
    logic [3:0] pass;
  } of_t;
  of_t ending, of;
  logic [4:0] base_shift;
  logic scoring, scoring_last;
  logic [LOG-1:0] query;
  ram_lut #(
      .WIDTH(5),
      .DEPTH(4)
  ) shifts (
      .clk,
      .we(form_we),
      .waddr(form_slot),
      .wdata(form.base_shift),
      .raddr(of.job),
      .rdata(base_shift)
  );
  assign scoring_last = scoring && query == LOG'(G - 1);
  assign scale_slot = of.slot;
  assign param_at = {of.job[0], of.pass};
  always_ff @(posedge clk) begin
    if (rst) scoring <= 1'b0;
    else if (dot_done) scoring <= 1'b1;
    else if (scoring_last) scoring <= 1'b0;
    if (item_last) ending <= '{job: item.job, slot: item.slot, pass: item.pass};
    if (dot_done) begin
      of <= ending;
      dots_held <= dots;
      query <= '0;
    end else if (scoring) query <= query + 1'b1;
  end

  logic [23:0] dot_in;
  logic [7:0] scale_in;
  logic [4:0] shift1_in, shift1, shift2_in, shift2;
  logic [15:0] multiplier_in, multiplier_then;
  logic signed [10:0] down;
  always_ff @(posedge clk) begin
    dot_in <= dots_held[query];
    scale_in <= scale;
    shift1_in <= base_shift;
    multiplier_in <= multiplier[query];
    down <= 11'(shift[query]) - 11'(base_shift) - 11'(scale[7:3]) - 11'd105;
  end
  assign shift2_in = down < 0 ? 5'd0 : down > 31 ? 5'd31 : down[4:0];
  delay #(
      .WIDTH(5),
      .CYCLES(3)
  ) delay_shift1 (
      .clk,
      .in_data(shift1_in),
      .out_data(shift1)
  );
  delay #(
      .WIDTH(16),
      .CYCLES(4)
  ) delay_multiplier (
      .clk,
      .in_data(multiplier_in),
      .out_data(multiplier_then)
  );
  delay #(
      .WIDTH(5),
      .CYCLES(6)
  ) delay_shift2 (
      .clk,
      .in_data(shift2_in),
      .out_data(shift2)
  );
  logic [15:0] score;
  scorer one (
      .clk,
      .dot(dot_in),
      .mantissa(scale_in[2:0]),
      .shift1,
      .multiplier(multiplier_then),
      .shift2,
      .base(16'sd0),
      .y(score)
  );

  logic score_ends;
  logic [9:0] ends;
  logic [G-1:0][15:0] collected, collected_next;
  logic y_in_ready;
  logic [3:0] y_level;
  always_comb begin
    collected_next = collected >> 16;
    collected_next[G-1] = score;
  end
  always_ff @(posedge clk) begin
    ends <= rst ? '0 : {ends[8:0], scoring_last};
    collected <= collected_next;
  end
  assign score_ends = ends[9];
  fifo #(
      .WIDTH(16 * G),
      .DEPTH(8)
  ) ys (
      .clk,
      .rst,
      .in_valid(score_ends),
      .in_ready(y_in_ready),
      .in_data(collected_next),
      .out_valid(y_valid),
      .out_ready(y_ready),
      .out_data(y),
      .level(y_level)
  );

  logic unused;
  assign unused = &{1'b0, y_in_ready, y_level, scale_in[7:3], 1'b0};
endmodule
