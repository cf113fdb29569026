// Scores of items: layout::Scores of the vectors of a page for the G queries of a pass, E = S / G vectors a
// cycle (E: 1, 2 or 4).
//
// Streams: items in order, blocks of dot products (block_done tells that the oldest is complete), y of bases;
// scores, the stream of the lane. An item of codes takes 64 / E steps, of parts 4 / E, of a page's own row 1.
// A job without pages gives one beat with `none` once its queries are complete. A job of weighted ReLU gives rank
// codes once a page (relu_unit), 5 cycles later than others have scores: other items wait until they are out. One of values
// leaves out tokens or bases. Latency: 17 cycles from a step to its scores. Stalls: score_ready (32 steps wait), a block or
// a base that is not complete.
//
// A step's inputs are read when they are used, up to 10 cycles after it: rows in cycle 4, sum and shift in
// cycle 2, multiplier and weight in cycle 6, base in cycle 10. So job_done comes 8 cycles after a job's last step;
// blocks and bases are not written so soon after they are given back.
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
    output logic [  4:0]              sum_at,
    input  logic [G-1:0][ 7:0]        shift,
    input  logic [G-1:0][16:0]        sum,
    output logic [  4:0]              multiplier_at,
    input  logic [G-1:0][15:0]        multiplier,
    input  logic [G-1:0][15:0]        weight,
    input  logic                      base_valid,
    output logic                      base_ready,
    output logic [  3:0]              base_at,
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
  if (E != 1 && E != 2 && E != 4) $error("S / G is 1, 2 or 4");

  score_shape_t shape_in, next_shape, shape;
  logic [$bits(score_shape_t)-1:0] shape_bits;
  assign shape_in = '{
          codes: form.kind == KIND_CODES,
          adjust: form.two_bit || form.sign_stage,
          sign_stage: form.sign_stage,
          page_row: form.page_row,
          fold: form.fold,
          relu: form.relu,
          part: form.part,
          group_last: form.group_last,
          listed: form.listed,
          maxima: form.maxima,
          padded: form.merge == '0,
          code_shift: form.code_shift - 5'(form.two_bit || form.sign_stage),
          down: 6'(form.code_shift) + 6'd9
      };
  ram_lut #(
      .WIDTH($bits(score_shape_t)),
      .DEPTH(4)
  ) shapes (
      .clk,
      .we(form_we),
      .waddr(form_slot),
      .wdata(shape_in),
      .raddr(item.job),
      .rdata(shape_bits)
  );
  assign next_shape = score_shape_t'(shape_bits);

  // The item at hand, and the next one, which follows without a gap once it may begin.
  logic running, may_begin, next_ok, next_base_read, begins, step, step_last, item_last, room_ok, waits;
  logic [5:0] at, left, last;
  logic [2:0] blocks;  // complete and not begun
  logic [1:0] block, next_block;
  logic [3:0] base_number, next_base;
  logic [5:0] room;  // steps
  logic [1:0] given_back;  // a cycle late
  logic folded, dropped;  // a step that gave no beat of scores
  logic [5:0] entry, vector;  // the first of the step, and what it is read from
  logic [7:0] dones;
  logic [3:0] relu_steps;  // in the cycles before
  // Each stage keeps what it needs of an item.
  // verilator lint_off UNUSEDSIGNAL
  item_t now;
  // verilator lint_on UNUSEDSIGNAL
  assign last = item.none || next_shape.page_row ? '0 : next_shape.codes ? 6'(64 / E - 1) : 6'(4 / E - 1);
  assign entry = 6'(32'(at) * E);
  assign vector = shape.page_row && shape.padded ? 6'd4 : entry;
  assign waits = (!next_shape.relu || item.none) && ((running && shape.relu) || relu_steps != '0);
  assign may_begin = !waits && (item.none ? filled[item.job] : blocks != '0 && (!next_shape.codes || base_valid));
  assign begins = next_ok && (!running || item_last);
  assign step = running && room_ok;
  assign item_last = step && step_last;
  assign item_ready = begins;
  assign block_free = item_last && !now.none;
  assign base_ready = begins && next_base_read;
  assign page_freed = item_last && now.last_pass;
  assign job_done = dones[7];
  assign page_slot = now.slot;

  always_ff @(posedge clk) begin
    if (rst) begin
      running <= 1'b0;
      next_ok <= 1'b0;
      blocks <= '0;
      next_block <= '0;
      next_base <= '0;
      dones <= '0;
      relu_steps <= '0;
      room <= 6'd32;
      given_back <= '0;
      room_ok <= 1'b0;
    end else begin
      if (begins) running <= 1'b1;
      else if (item_last) running <= 1'b0;
      // An item that may begin stays so until it does.
      next_ok <= item_valid && !begins && may_begin;
      blocks <= blocks + 3'(block_done) - 3'(begins && !item.none);
      next_block <= next_block + 2'(begins && !item.none);
      next_base <= next_base + 4'(base_ready);
      dones <= {dones[6:0], item_last && now.last};
      relu_steps <= {relu_steps[2:0], step && shape.relu};
      given_back <= 2'(score_valid && score_ready) + 2'(folded) + 2'(dropped);
      room <= room - 6'(step) + 6'(given_back);
      room_ok <= room > 6'd1;
    end
    next_base_read <= !item.none && next_shape.codes;
    if (begins) begin
      now <= item;
      shape <= next_shape;
      block <= next_block;
      base_number <= next_base;
      at <= '0;
      left <= last;
      step_last <= last == '0;
    end else if (step) begin
      at <= at + 6'd1;
      left <= left - 6'd1;
      step_last <= left == 6'd1;
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
  logic [E-1:0][7:0] token_scale, row_scale;
  always_comb begin
    for (int e = 0; e < E; ++e) begin
      automatic logic [5:0] which = entry | 6'(e);
      token_scale[e] = scales[which];
      row_scale[e] = shape.sign_stage ? header.sign_scale : shape.page_row ? header.row_scales[4] :
          header.row_scales[which[1:0]];
    end
    tag_now = '{
        push: step_last || !shape.fold,
        relu: shape.relu,
        last_pass: now.last_pass,
        head: '{
            value: shape.part != Y_ALL,
            last: now.last && step_last,
            none: now.none,
            page_last: step_last && (now.last_pass || shape.part == Y_ALL),
            maxima: shape.maxima,
            pass: now.pass,
            at: shape.fold ? '0 : at,
            counts: '0  // of score_counts
        }
    };
  end

  // Addresses of what is read later.
  logic [2:0] vector4;
  logic bases2, bases6, codes10;
  delay #(
      .WIDTH(6),
      .CYCLES(2)
  ) delay_sum (
      .clk,
      .in_data({shape.part == Y_BASES, now.job[0], now.pass}),
      .out_data({bases2, sum_at})
  );
  delay #(
      .WIDTH(14),
      .CYCLES(4)
  ) delay_row (
      .clk,
      .in_data({bases2, block, vector, sum_at}),
      .out_data({bases6, read_row, vector4, multiplier_at})
  );
  delay #(
      .WIDTH(5),
      .CYCLES(10)
  ) delay_base (
      .clk,
      .in_data({shape.codes && shape.part != Y_TOKENS, base_number}),
      .out_data({codes10, base_at})
  );

  // Registers by the cycles after a step; the scorers' cycle 0 is cycle 5.
  logic [6:1] valid;
  logic [TAG-1:0] tag1, tag4_bits;
  tag_t tag4;
  logic [E-1:0] counts4;
  logic [1:0] fold1, fold4;
  logic tokens1, own2, adjust1, adjust3, sign1, sign3;
  logic [4:0] code_shift1, code_shift3;
  logic [5:0] down1, down4;
  logic [7:0] top1, top2;
  logic [E-1:0][7:0] token_scale1, row_scale1, scale2, top3, top5;
  logic [E-1:0][4:0] below3, shift1_4;
  logic [E-1:0][2:0] mantissa2, mantissa4;
  logic [G-1:0][16:0] sum3;
  logic [G-1:0][7:0] shift3, shift4;
  logic [G-1:0][18:0] less4;  // what is taken away, as its complement
  logic [G-1:0][9:0] down5;  // signed
  logic [E-1:0][G-1:0][24:0] dot2_5;
  logic [E-1:0][G-1:0][4:0] shift2_6;
  logic [G-1:0][15:0] multiplier7, base11;
  logic [E-1:0][G-1:0][23:0] dots_now;
  delay #(
      .WIDTH(TAG + 8),
      .CYCLES(3)
  ) delay_tag (
      .clk,
      .in_data({tag1, fold1, down1}),
      .out_data({tag4_bits, fold4, down4})
  );
  score_counts #(
      .E(E)
  ) entries (
      .none(now.none),
      .first(entry),
      .counts(counts4),
      .*
  );
  always_comb begin
    tag4 = tag_t'(tag4_bits);
    tag4.head.counts = 8'(counts4);
  end
  delay #(
      .WIDTH(7 + 11 * E),
      .CYCLES(2)
  ) delay_two (
      .clk,
      .in_data({adjust1, sign1, code_shift1, mantissa2, top3}),
      .out_data({adjust3, sign3, code_shift3, mantissa4, top5})
  );

  for (genvar e = 0; e < E; ++e) begin : g_entry
    wire [2:0] from = vector4 | 3'(e);
    assign mantissa2[e] = scale2[e][2:0];
    assign dots_now[e]  = dots[from];
  end

  always_ff @(posedge clk) begin
    valid <= rst ? '0 : {valid[5:1], step};
    if (step) begin  // 1
      tag1 <= tag_now;
      fold1 <= {shape.fold && !now.none, at == '0};
      token_scale1 <= token_scale;
      row_scale1 <= row_scale;
      tokens1 <= shape.codes && !shape.sign_stage;
      adjust1 <= shape.adjust;
      sign1 <= shape.sign_stage;
      code_shift1 <= shape.code_shift;
      down1 <= shape.down;
      top1 <= header.top_octave;
    end
    if (valid[1]) begin  // 2
      scale2 <= tokens1 ? token_scale1 : row_scale1;
      own2 <= !tokens1;
      top2 <= top1;
    end
    if (valid[2]) begin  // 3: octaves
      sum3 <= sum;
      shift3 <= shift;
      for (int e = 0; e < E; ++e) begin
        top3[e] <= own2 ? 8'(scale2[e][7:3]) : top2;
        below3[e] <= own2 ? 5'd0 : limited(11'(top2) - 11'(scale2[e][7:3]));
      end
    end
    if (valid[3]) begin  // 4
      shift4 <= shift3;
      for (int e = 0; e < E; ++e) shift1_4[e] <= limited(11'(code_shift3) + 11'(below3[e]));
      for (int g = 0; g < G; ++g) begin
        less4[g] <= !adjust3 ? '1 : 19'($signed(~sum3[g])) - (sign3 ? 19'd0 : {19'($signed(sum3[g])) << 1});
      end
    end
    if (valid[4]) begin  // 5: twice the dot product, less a sum of codes
      for (int g = 0; g < G; ++g) begin
        down5[g] <= 10'(shift4[g]) - (10'(down4) + 10'd96);
        for (int e = 0; e < E; ++e) dot2_5[e][g] <= 25'($signed(less4[g])) + {dots_now[e][g], 1'b1};
      end
    end
    if (valid[5]) begin  // 6
      for (int e = 0; e < E; ++e) begin
        for (int g = 0; g < G; ++g) shift2_6[e][g] <= limited(11'($signed(down5[g])) - 11'(top5[e]));
      end
    end
    if (valid[6]) multiplier7 <= bases6 ? '0 : multiplier;
    base11 <= codes10 ? base : '0;
  end

  logic out_valid, out_in_ready, rank_valid;
  logic [5:0] unused_out_level;
  logic [TAG-1:0] out_tag_bits;
  tag_t out_tag;
  logic [S*16-1:0] out_y;
  score_array #(
      .G(G),
      .S(S),
      .TAG(TAG)
  ) array (
      .clk,
      .rst,
      .valid(valid[4]),
      .tag(tag4),
      .fold(fold4[1]),
      .fold_first(fold4[0]),
      .mantissa(mantissa4),
      .shift1(shift1_4),
      .dot2(dot2_5),
      .shift2(shift2_6),
      .multiplier(multiplier7),
      .base(base11),
      .out_valid,
      .out_tag(out_tag_bits),
      .y(out_y)
  );
  assign out_tag = tag_t'(out_tag_bits);
  assign folded = out_valid && !out_tag.push;

  score_head_t rank_head;
  logic [S*16-1:0] rank_y;
  relu_stage #(
      .G(G),
      .S(S)
  ) ranks (
      .clk,
      .rst,
      .group_last(shape.group_last),
      .pass(multiplier_at[3:0]),
      .weight,
      .valid(out_valid && out_tag.push),
      .relu(out_tag.relu),
      .last_pass(out_tag.last_pass),
      .head(out_tag.head),
      .y(out_y),
      .out_valid(rank_valid),
      .dropped,
      .out_head(rank_head),
      .out_y(rank_y)
  );
  fifo_late #(
      .WIDTH(HEAD + S * 16),
      .DEPTH(32),
      .HAS_ROOM(1'b1)
  ) out (
      .clk,
      .rst,
      .in_valid(rank_valid),
      .in_ready(out_in_ready),
      .in_data({rank_head, rank_y}),
      .out_valid(score_valid),
      .out_ready(score_ready),
      .out_data({score_head, score_y}),
      .level(unused_out_level)
  );
  wire unused = &{1'b0, out_in_ready, 1'b0};
endmodule
