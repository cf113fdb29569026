// Scores of items: layout::Scores of the vectors of a page for the G queries of a pass, E = S / G vectors a
// cycle (E: 1, 2 or 4).
//
// Streams: items in order, blocks of dot products (block_done tells that the oldest is complete), y of bases; scores,
// the stream of the lane. An item of codes takes 64 / E steps, of parts 4 / E, of a page's own row 1. A job without
// pages gives one beat with `none` once its queries are complete. A job of weighted ReLU gives rank codes once a page
// (relu_unit). Latency: 20 cycles from a step to its scores. Stalls: score_ready (32 steps wait), a block or a base
// that is not complete.
module score_stage
  import card_types::*;
  import scan_types::*;
#(
    parameter int G = 4,
    parameter int S = 16
) (
    input  logic                      clk,
    input  logic                      rst,
    input  logic                      form_we,
    input  logic [  1:0]              form_slot,
    // Each stage keeps what it needs of a job, and of an item.
    // verilator lint_off UNUSEDSIGNAL
    input  form_t                     form,
    input  logic                      item_valid,
    output logic                      item_ready,
    input  item_t                     item,
    input  header_t                   header,
    // verilator lint_on UNUSEDSIGNAL
    input  logic                      block_done,
    output logic                      block_free,
    output logic [  4:0]              read_row,
    input  logic [7:0][G-1:0][23:0]   dots,
    output logic [  4:0]              page_slot,
    input  logic [ 63:0][7:0]         scales,
    input  logic [  5:0]              low,
    input  logic [  5:0]              high,
    input  logic [ 63:0]              mask,
    output logic [  4:0]              param_at,
    input  logic [G-1:0][15:0]        multiplier,
    input  logic [G-1:0][ 7:0]        shift,
    input  logic [G-1:0][16:0]        sum,
    input  logic [G-1:0][15:0]        weight,
    input  logic                      base_valid,
    output logic                      base_ready,
    input  logic [G-1:0][15:0]        base,
    input  logic [  3:0]              filled,
    output logic                      page_freed,
    output logic                      job_done,
    output logic                      score_valid,
    input  logic                      score_ready,
    output score_head_t               score_head,
    output logic [S*16-1:0]           score_y
);
  localparam int E = S / G;
  localparam int HEAD = $bits(score_head_t);
  localparam int LOG = $clog2(G);
  if (E != 1 && E != 2 && E != 4) begin : g_bounds
    $error("S / G is 1, 2 or 4");
  end

  typedef struct packed {
    logic       codes;
    logic       adjust;     // of two_bit or sign_stage
    logic       sign_stage;
    logic       page_row;
    logic       fold;
    logic       relu;
    logic [5:0] group_last;
    logic       listed;
    logic       maxima;
    logic       padded;     // the page's own row is vector 4
    logic [4:0] code_shift;
  } shape_t;
  shape_t shape_in, shape;
  logic [$bits(shape_t)-1:0] shape_bits;
  assign shape_in = '{
          codes: form.kind == KIND_CODES,
          adjust: form.two_bit || form.sign_stage,
          sign_stage: form.sign_stage,
          page_row: form.page_row,
          fold: form.fold,
          relu: form.relu,
          group_last: form.group_last,
          listed: form.listed,
          maxima: form.maxima,
          padded: form.merge == '0,
          code_shift: form.code_shift
      };
  ram_lut #(
      .WIDTH($bits(shape_t)),
      .DEPTH(4)
  ) shapes (
      .clk,
      .we(form_we),
      .waddr(form_slot),
      .wdata(shape_in),
      .raddr(item.job),
      .rdata(shape_bits)
  );
  assign shape = shape_t'(shape_bits);

  // Steps.
  logic step, step_last, item_last, ready;
  logic [5:0] at, last;
  logic [2:0] blocks;  // complete
  logic [1:0] block;
  logic [5:0] room;  // steps
  logic folded, dropped;  // a step that gave no beat of scores
  logic [5:0] entry;  // the first of the step
  logic [5:0] vector;  // that it is read from
  assign last = item.none || shape.page_row ? '0 : shape.codes ? 6'(64 / E - 1) : 6'(4 / E - 1);
  assign entry = 6'(32'(at) * E);
  assign vector = shape.page_row && shape.padded ? 6'd4 : entry;
  assign ready = item.none ? filled[item.job] : blocks != '0 && (!shape.codes || base_valid);
  assign step = item_valid && ready && room != '0;
  assign step_last = at == last;
  assign item_last = step && step_last;
  assign item_ready = item_last;
  assign block_free = item_last && !item.none;
  assign base_ready = item_last && !item.none && shape.codes;
  assign page_freed = item_last && item.last_pass;
  assign job_done = item_last && item.last;
  assign read_row = {block, vector[5:3]};
  assign page_slot = item.slot;
  assign param_at = {item.job[0], item.pass};

  always_ff @(posedge clk) begin
    if (rst) begin
      at <= '0;
      blocks <= '0;
      block <= '0;
      room <= 6'd32;
    end else begin
      if (step) at <= step_last ? '0 : at + 6'd1;
      blocks <= blocks + 3'(block_done) - 3'(block_free);
      block <= block + 2'(block_free);
      room <= room - 6'(step) + 6'(score_valid && score_ready) + 6'(folded) + 6'(dropped);
    end
  end

  // First registers: the step's dot products, scales and range.
  typedef struct packed {
    logic        push;
    logic        relu;
    logic        last_pass;
    score_head_t head;
  } tag_t;
  localparam int TAG = $bits(tag_t);
  tag_t tag_now;
  logic [E-1:0] counts;
  logic [E-1:0][7:0] scale_now;
  logic [5:0] which;
  always_comb begin
    for (int e = 0; e < E; ++e) begin
      which = entry + 6'(e);
      counts[e] = shape.listed ? mask[which] : which >= low && which <= high;
      scale_now[e] = shape.sign_stage ? header.sign_scale : shape.codes ? scales[which] :
          shape.page_row ? header.row_scales[4] : header.row_scales[which[1:0]];
    end
    if (shape.page_row) counts = E'(counts[0]);
    // The page is entry 0, in whichever step it is complete.
    if (shape.fold) begin
      counts = '0;
      counts[0] = shape.listed ? mask[0] : low == '0;
    end
    tag_now = '{
        push: step_last || !shape.fold,
        relu: shape.relu,
        last_pass: item.last_pass,
        head: '{
            last: item.last && step_last,
            none: item.none,
            page_last: step_last,
            maxima: shape.maxima,
            pass: item.pass,
            at: shape.fold ? '0 : at,
            counts: item.none ? '0 : 8'(counts)
        }
    };
  end

  logic valid1, valid2, valid3;
  logic [TAG-1:0] tag1, tag2, tag3;
  logic [1:0] fold1, fold2, fold3;
  logic adjust1, adjust2, own1;
  logic [4:0] code_shift1, code_shift2;
  logic [E-1:0][G-1:0][23:0] dots1, dots2, dots3;
  logic [E-1:0][7:0] scale1;
  logic [E-1:0][2:0] mantissa2, mantissa3;
  logic [7:0] top1;
  logic [E-1:0][7:0] top2;
  logic [E-1:0][4:0] below2, shift1_3;
  logic [G-1:0][15:0] multiplier1, multiplier2, multiplier3, base1, base2, base3;
  logic [G-1:0][7:0] shift1;
  logic [G-1:0][16:0] sum1;
  logic sign1;
  logic [G-1:0][18:0] less2;
  logic [G-1:0][9:0] down2;  // signed
  logic [E-1:0][G-1:0][4:0] shift2_3;

  always_ff @(posedge clk) begin
    valid1 <= step && !rst;
    tag1 <= tag_now;
    fold1 <= {shape.fold && !item.none, at == '0};
    for (int e = 0; e < E; ++e) dots1[e] <= dots[(32'(vector[2:0])+e)%8];
    scale1 <= scale_now;
    top1 <= header.top_octave;
    own1 <= !shape.codes || shape.sign_stage;
    adjust1 <= shape.adjust;
    sign1 <= shape.sign_stage;
    code_shift1 <= shape.code_shift;
    multiplier1 <= multiplier;
    shift1 <= shift;
    sum1 <= sum;
    base1 <= shape.codes ? base : '0;
  end

  function automatic logic [4:0] limited(input logic signed [10:0] value);
    return value < 0 ? 5'd0 : value > 31 ? 5'd31 : value[4:0];
  endfunction

  // Second registers: octaves, and the shifts' parts by query.
  always_ff @(posedge clk) begin
    valid2 <= valid1 && !rst;
    {tag2, fold2, adjust2, code_shift2, dots2, multiplier2, base2} <=
        {tag1, fold1, adjust1, code_shift1, dots1, multiplier1, base1};
    for (int e = 0; e < E; ++e) begin
      mantissa2[e] <= scale1[e][2:0];
      top2[e] <= own1 ? 8'(scale1[e][7:3]) : top1;
      below2[e] <= own1 ? 5'd0 : limited(11'(top1) - 11'(scale1[e][7:3]));
    end
    for (int g = 0; g < G; ++g) begin
      less2[g] <= 19'($signed(sum1[g])) + (sign1 ? 19'd0 : {19'($signed(sum1[g])) << 1});
      down2[g] <= 10'(shift1[g]) - (10'(code_shift1) + 10'd105);
    end
  end

  // Third registers: what the scorers take.
  always_ff @(posedge clk) begin
    valid3 <= valid2 && !rst;
    {tag3, fold3, multiplier3, base3, mantissa3} <= {tag2, fold2, multiplier2, base2, mantissa2};
    for (int e = 0; e < E; ++e) begin
      shift1_3[e] <= limited(11'(code_shift2) + 11'(below2[e]));
      for (int g = 0; g < G; ++g) begin
        dots3[e][g] <= adjust2 ? {dots2[e][g][22:0], 1'b0} - 24'($signed(less2[g])) : dots2[e][g];
        shift2_3[e][g] <= limited(11'($signed(down2[g])) - 11'(top2[e]));
      end
    end
  end

  logic out_valid, out_in_ready;
  logic [TAG-1:0] out_tag_bits;
  tag_t out_tag;
  logic [S*16-1:0] out_y;
  logic [5:0] out_level;
  score_array #(
      .G(G),
      .S(S),
      .TAG(TAG)
  ) array (
      .clk,
      .rst,
      .valid(valid3),
      .tag(tag3),
      .fold(fold3[1]),
      .fold_first(fold3[0]),
      .dots(dots3),
      .mantissa(mantissa3),
      .shift1(shift1_3),
      .multiplier(multiplier3),
      .shift2(shift2_3),
      .base(base3),
      .out_valid,
      .out_tag(out_tag_bits),
      .y(out_y)
  );
  assign out_tag = tag_t'(out_tag_bits);
  assign folded = out_valid && !out_tag.push;

  logic rank_valid;
  score_head_t rank_head;
  logic [S*16-1:0] rank_y;
  if (G >= 2) begin : g_relu
    // The last pass may have fewer queries.
    logic [G-1:0][15:0] weight_now, weight_then;
    always_comb begin
      for (int g = 0; g < G; ++g) begin
        weight_now[g] = {item.pass, LOG'(g)} <= (LOG + 4)'(shape.group_last) ? weight[g] : 16'd0;
      end
    end
    delay #(
        .WIDTH(16 * G),
        .CYCLES(13)
    ) delay_weight (
        .clk,
        .in_data(weight_now),
        .out_data(weight_then)
    );
    relu_unit #(
        .G(G),
        .S(S)
    ) ranks (
        .clk,
        .rst,
        .valid(out_valid && out_tag.push),
        .relu(out_tag.relu),
        .last_pass(out_tag.last_pass),
        .head(out_tag.head),
        .y(out_y),
        .weight(weight_then),
        .out_valid(rank_valid),
        .dropped,
        .out_head(rank_head),
        .out_y(rank_y)
    );
  end else begin : g_none  // a beat of one query has no room for codes
    logic unused_weight;
    assign unused_weight = &{1'b0, weight, shape.group_last, out_tag.relu, out_tag.last_pass, 1'b0};
    assign rank_valid = out_valid && out_tag.push;
    assign dropped = 1'b0;
    assign rank_head = out_tag.head;
    assign rank_y = out_y;
  end
  fifo #(
      .WIDTH(HEAD + S * 16),
      .DEPTH(32)
  ) out (
      .clk,
      .rst,
      .in_valid(rank_valid),
      .in_ready(out_in_ready),
      .in_data({rank_head, rank_y}),
      .out_valid(score_valid),
      .out_ready(score_ready),
      .out_data({score_head, score_y}),
      .level(out_level)
  );

  logic unused;
  assign unused = &{1'b0, out_in_ready, out_level, 1'b0};
endmodule
