// The base's part of y for each page and pass: layout::ScoreTerm of the base's dot product, its scale and the
// octave of its scale, for G queries.
//
// Streams: items of code formats; y of G queries, an item each, in order, read at y_at (modulo 16) up to some items
// after it is taken. Reads bases from page_buffer (those of a page again for each pass), codes and parameters from
// query_store. Latency: dim / 8 + 16 + G cycles; an item each dim / 8 cycles. Stalls: a base that is not there, tables
// that are not built, codes that are written, 8 items of y that wait.
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
    output logic                          code_read,
    input  logic                          code_ready,
    output logic [  9:0]                  code_at,
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
    input  logic [  3:0]                  y_at,
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
  logic running, start, step, step_last, item_last, half, there;  // there: the beat at `read`
  logic last_segment;  // a cycle late: a segment has 8 steps
  logic [1:0] segment, word;
  logic [5:0] read, read_after, page_start;  // beats
  logic [3:0] room;  // items of y
  assign start = item_valid && !running && full[item.bank] && room != '0;
  assign code_read = running && there;
  assign code_at = {item.job[0], item.pass, 1'b0, segment, word};
  assign step = code_read && code_ready;
  assign read_after = read + 6'd1;
  assign item_last = step && step_last && last_segment;
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
      there <= 1'b0;
    end else begin
      if (start) running <= 1'b1;
      else if (item_last) running <= 1'b0;
      room <= room - 4'(start) + 4'(y_valid && y_ready);
      if (step && step_last) read <= item_last && !item.last_pass ? page_start : read_after;
      if (item_last && item.last_pass) page_start <= read_after;
      if (!step || !step_last) there <= read != base_written;
      else there <= (item_last && !item.last_pass) || read_after != base_written;
      base_freed <= step && step_last && item.last_pass;
    end
    last_segment <= 3'(segment) == segment_last(merge);
    if (start) begin
      {segment, word, half} <= '0;
      step_last <= 1'b0;
    end else if (step) begin
      {segment, word, half} <= {segment, word, half} + 5'd1;
      step_last <= {word, half} == 3'd6;
    end
  end

  // Codes come a cycle after the base.
  logic [7:0][7:0] base_now, base_then, base_held;
  logic [G-1:0][7:0][7:0] codes_then, codes_held;
  logic half_then;
  always_comb begin
    for (int i = 0; i < 8; ++i) base_now[i] = base[8*(4*(8*32'(half)+i)+32'(word))+:8];
    for (int g = 0; g < G; ++g) codes_then[g] = half_then ? codes[g][15:8] : codes[g][7:0];
  end
  logic [1:0] dot_valid, dot_first, dot_last;
  always_ff @(posedge clk) begin
    dot_valid <= rst ? '0 : {dot_valid[0], step};
    dot_first <= {dot_first[0], {segment, word, half} == '0};
    dot_last <= {dot_last[0], item_last};
    half_then <= half;
    base_then <= base_now;
    base_held <= base_then;
    codes_held <= codes_then;
  end
  logic dot_done;
  logic [G-1:0][23:0] dots, dots_held;
  base_dot #(
      .G(G)
  ) dot (
      .clk,
      .rst,
      .valid(dot_valid[1]),
      .first(dot_first[1]),
      .last(dot_last[1]),
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

  // The scorer's cycle 0 is the second one after the query's.
  logic [24:0] dot_in;
  logic [7:0] scale_in, shift_in;
  logic [5:0] octave;
  logic [4:0] shift1_in, shift2;
  logic [LOG-1:0] query1;
  logic [1:0] coarse1;
  logic [14:0] factor;
  logic [15:0] multiplier0, multiplier_in;
  logic signed [10:0] down;
  always_ff @(posedge clk) begin
    query1 <= query;
    scale_in <= scale;
    shift1_in <= base_shift;
    shift_in <= shift[query];
    octave <= 6'(base_shift) + 6'(scale[7:3]);
    down <= 11'(shift_in) - (11'(octave) + 11'd105);
    dot_in <= {dots_held[query1], 1'b0};
    multiplier0 <= multiplier[query];
  end
  // The next item's parameters may be there before it is used.
  delay #(
      .WIDTH(16),
      .CYCLES(3)
  ) delay_multiplier (
      .clk,
      .in_data(multiplier0),
      .out_data(multiplier_in)
  );
  scale_factor factor_of_scale (
      .clk,
      .mantissa(scale_in[2:0]),
      .fine(shift1_in[2:0]),
      .factor
  );
  delay #(
      .WIDTH(2),
      .CYCLES(3)
  ) delay_coarse (
      .clk,
      .in_data(shift1_in[4:3]),
      .out_data(coarse1)
  );
  always_ff @(posedge clk) shift2 <= scan_types::limited(down);
  logic [15:0] score;
  logic [16:0] score_sum;
  logic [9:0] scored;  // queries, by the cycles since
  scorer #(
      .PRODUCTS(2)
  ) one (
      .clk,
      .moves(scored[8:1]),
      .dot2(dot_in),
      .factor,
      .coarse1,
      .multiplier(multiplier_in),
      .shift2,
      .base(16'sd0),
      .sum(score_sum),
      .y(score)
  );

  logic score_ends;
  logic [9:0] ends;
  logic [G-1:0][15:0] collected, collected_next;
  logic [3:0] y_written, y_level;
  always_comb begin
    collected_next = collected >> 16;
    collected_next[G-1] = score;
  end
  always_ff @(posedge clk) begin
    scored <= rst ? '0 : {scored[8:0], scoring};
    ends   <= rst ? '0 : {ends[8:0], scoring_last};
    if (scored[9]) collected <= collected_next;
  end
  assign score_ends = ends[9];

  // A ring of 16, of which 8 wait: a y may be read for some cycles after it is taken.
  assign y_valid = y_level != '0;
  always_ff @(posedge clk) begin
    if (rst) begin
      y_written <= '0;
      y_level <= '0;
    end else begin
      y_written <= y_written + 4'(score_ends);
      y_level <= y_level + 4'(score_ends) - 4'(y_valid && y_ready);
    end
  end
  ram_lut #(
      .WIDTH(16 * G),
      .DEPTH(16)
  ) ys (
      .clk,
      .we(score_ends),
      .waddr(y_written),
      .wdata(collected_next),
      .raddr(y_at),
      .rdata(y)
  );

  logic unused;
  assign unused = &{1'b0, scale_in[7:3], score_sum, 1'b0};
endmodule
