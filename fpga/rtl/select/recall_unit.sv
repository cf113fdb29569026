// The weighted sums of jobs of kSelectWeightedSum, one page at a time, by G multipliers for all lanes.
//
// A job's hits are all entries of its range with their ranks, in page order. For each the scan of values behind it gives
// y of G elements a pass: layout::AlignedValue of the tokens, or of the bases. The unit takes a page's weights, lets the
// page's lane send its values (recall_tap), and adds weight times value. When both parts of the elements are added their
// sums leave as hits, behind the WeightedSumHeader.
//
// Streams: heads and hits of the selector in; heads and hits out, of other jobs at once; for each job the largest octave
// of its pages to the loader of the scan's queries. `send` names a lane for a cycle; its values come by the chain,
// which never stalls. Cycles: a page takes 64 a pass or the lane's own time, and about CHANNELS + its entries more.
// Stalls: the takers of its streams, the lane.
//
// Equals the weighted sum of layout::ScoreSelect. A card has as many DSP for it as G: products of 17 and 16 bits.
module recall_unit
  import card_types::*;
#(
    parameter int CHANNELS = 2,
    parameter int G = 4
) (
    input  logic                  clk,
    input  logic                  rst,
    input  logic                  head_valid,
    output logic                  head_ready,
    input  hit_head_t             head,
    input  logic                  hit_valid,
    output logic                  hit_ready,
    input  hit_beat_t             hit_beat,
    input  logic      [511:0]     hit_ids,
    input  logic      [511:0]     hit_ranks,
    output logic                  octave_valid,
    input  logic                  octave_ready,
    output logic      [  4:0]     octave,
    output logic                  send_valid,
    output logic      [  4:0]     send_lane,
    input  logic                  value_valid,
    input  logic                  value_counts,
    input  logic      [G*16-1:0]  value_y,
    input  logic      [  4:0]     value_top,
    output logic                  out_head_valid,
    input  logic                  out_head_ready,
    output hit_head_t             out_head,
    output logic                  out_hit_valid,
    input  logic                  out_hit_ready,
    output hit_beat_t             out_hit_beat,
    output logic      [511:0]     out_hit_ids,
    output logic      [511:0]     out_hit_ranks
);
  localparam int SUM_BITS = 64;
  localparam int QUERY = $clog2(G);
  localparam int PAGE_SUM = 40;  // 64 products of 33 bits and a sign
  localparam logic [3:0] SETTLE = 4'd15;  // cycles until the last values are in the sums
  localparam logic [2:0] HEADER_WORDS = 3'd6;  // of 64 bits behind the result writer's own
  localparam logic [4:0] LAST_WORDS = 5'd12;  // of 32 bits in the last beat, whatever the dim

  typedef enum logic [3:0] {
    IDLE,
    PASS,    // hits of another job go through
    TOP,     // the loader takes the octave
    LOAD,    // a page's weights
    SEND,
    VALUES,
    SETTLING,
    HEAD,
    HEADER,
    SUMS,
    PAD
  } state_t;

  state_t state;
  /* verilator lint_off UNUSEDSIGNAL */  // what the sum's own head does not have
  hit_head_t now;
  /* verilator lint_on UNUSEDSIGNAL */
  logic head_due;  // of the sum at hand, which has not left
  logic [31:0] count;
  logic [63:0] total;
  logic weight_valid, weight_ready, weight_last, last_taken, page_begun;
  logic [16:0] weight;
  logic [10:0] id;
  logic page;  // low bit of its number
  logic [4:0] lane;
  logic [9:0] words;
  logic [3:0] settle;
  logic [QUERY+3:0] sum_last;  // of the elements of a scan
  wire words_end = words == {now.weigh.pass_last, 6'h3F};
  assign sum_last = {now.weigh.pass_last, QUERY'(G - 1)};

  // Hits are those of this job from its head on; all are taken before the next head.
  logic summing, weights_ready;
  recall_weights weights_of (
      .clk,
      .rst,
      .on(summing),
      .hit_valid,
      .hit_ready(weights_ready),
      .hit_beat,
      .hit_ids,
      .hit_ranks,
      .weight_valid,
      .weight_ready,
      .weight,
      .id,
      .last(weight_last)
  );
  assign summing = state == LOAD || state == SEND || state == VALUES;
  wire same_page = !page_begun || id[6] == page;
  assign weight_ready = state == LOAD && same_page && !last_taken;
  wire take_weight = weight_valid && weight_ready;

  // Values times weights: over the 64 entries of a page, then into the sums, one element a cycle.
  logic [16:0] stored, weight1;
  logic valid1, valid2, first1, first2, end1, end2, end3;
  logic signed [G-1:0][15:0] y1;
  logic signed [G-1:0][33:0] product;
  logic signed [G-1:0][PAGE_SUM-1:0] page_sum, held;
  logic [QUERY:0] adds;
  logic fresh;  // nothing is in the sums
  logic [QUERY+3:0] sum_at, word_at;
  logic [SUM_BITS-1:0] sum_read;
  wire adding = adds != '0;
  wire add_end = sum_at == sum_last;
  ram_lut #(
      .WIDTH(17),
      .DEPTH(64)
  ) page_weights (
      .clk,
      .we(take_weight),
      .waddr(id[5:0]),
      .wdata(weight),
      .raddr(words[5:0]),
      .rdata(stored)
  );
  ram_lut #(
      .WIDTH(SUM_BITS),
      .DEPTH(16 * G)
  ) sums (
      .clk,
      .we(adding),
      .waddr(sum_at),
      .wdata((fresh ? '0 : sum_read) + SUM_BITS'($signed(held[0]))),
      .raddr(state == SUMS ? word_at : sum_at),
      .rdata(sum_read)
  );
  always_ff @(posedge clk) begin
    weight1 <= value_counts ? stored : '0;
    y1 <= value_y;
    first1 <= words[5:0] == '0;
    end1 <= words[5:0] == '1;
    valid1 <= value_valid && !rst;
    first2 <= first1;
    end2 <= end1;
    valid2 <= valid1 && !rst;
    end3 <= valid2 && end2 && !rst;
    for (int g = 0; g < G; ++g) begin
      product[g] <= $signed({1'b0, weight1}) * $signed(y1[g]);
      if (valid2) page_sum[g] <= (first2 ? '0 : page_sum[g]) + PAGE_SUM'($signed(product[g]));
    end
    held <= end3 ? page_sum : held >> PAGE_SUM;
    if (end3) adds <= (QUERY + 1)'(G);
    else if (adding) adds <= adds - 1'b1;
    if (adding) begin
      sum_at <= add_end ? '0 : sum_at + 1'b1;
      if (add_end) fresh <= 1'b0;
    end
    if (state == TOP && !now.weigh.bases) fresh <= 1'b1;
    if (rst) begin
      adds <= '0;
      sum_at <= '0;
    end
  end

  // Words of the result, 8 a beat.
  logic pack_valid, pack_last, word_go;
  logic [2:0] packed_words;
  logic [7:0][63:0] pack;
  logic [63:0] word;
  wire writing = state == HEADER || state == SUMS || state == PAD;
  assign word_go = writing && !pack_valid;
  always_comb begin
    word = '0;
    if (state == HEADER && word_at == '0) word = total;
    if (state == HEADER && 32'(word_at) == 1) word = 64'(octave);
    if (state == SUMS && !fresh) word = sum_read;
  end

  always_ff @(posedge clk) begin
    unique case (state)
      IDLE: begin
        now <= head;
        last_taken <= 1'b0;
        page_begun <= 1'b0;
        if (head_valid && head.weigh.on) state <= TOP;
        else if (head_valid && out_head_ready && !head.to_list && head.count != '0) state <= PASS;
      end
      PASS: if (hit_valid && hit_ready && hit_beat.last) state <= IDLE;
      TOP: begin
        settle <= SETTLE;
        if (octave_ready) state <= now.candidates == '0 ? SETTLING : LOAD;
        if (now.weigh.first) begin
          head_due <= 1'b1;
          count <= '0;
          total <= '0;
        end
      end
      LOAD: begin
        if (take_weight) begin
          page_begun <= 1'b1;
          page <= id[6];
          lane <= id[10:6] + now.weigh.shift;
          last_taken <= weight_last;
          if (now.weigh.first) begin
            count <= count + 32'(weight != '0);
            total <= total + 64'(weight);
          end
        end
        if (last_taken || (weight_valid && !same_page)) state <= SEND;
      end
      SEND: begin
        words <= '0;
        state <= VALUES;
      end
      VALUES:
      if (value_valid) begin
        words <= words + 1'b1;
        page_begun <= 1'b0;
        if (words_end) state <= last_taken ? SETTLING : LOAD;
      end
      SETTLING: begin
        settle <= settle - 1'b1;
        if (settle == '0) state <= !now.weigh.bases ? IDLE : head_due ? HEAD : SUMS;
      end
      HEAD: if (out_head_ready) state <= HEADER;
      HEADER: if (word_go && 32'(word_at) == 32'(HEADER_WORDS) - 1) state <= SUMS;
      SUMS: if (word_go && word_at == sum_last) state <= now.weigh.last ? PAD : IDLE;
      default: if (pack_valid && out_hit_ready) state <= pack_last ? IDLE : PAD;
    endcase

    if (state == SETTLING || state == HEAD) word_at <= '0;
    if (state == HEAD && out_head_ready) head_due <= 1'b0;
    if (word_go) begin
      word_at <= (state == HEADER && 32'(word_at) == 32'(HEADER_WORDS) - 1) || (state == SUMS && word_at == sum_last) ?
          '0 : word_at + 1'b1;
      pack <= {word, pack[7:1]};
      packed_words <= packed_words + 1'b1;
      pack_valid <= packed_words == 3'd7;
      pack_last <= state == PAD;
    end
    if (pack_valid && out_hit_ready) pack_valid <= 1'b0;
    if (state == IDLE) octave <= head.candidates == '0 ? '0 : value_top;
    if (rst) begin
      state <= IDLE;
      head_due <= 1'b0;
      pack_valid <= 1'b0;
      packed_words <= '0;
    end
  end

  assign octave_valid = state == TOP;
  assign send_valid = state == SEND;
  assign send_lane = lane & 5'(CHANNELS - 1);

  assign head_ready = state == IDLE && (head.weigh.on || out_head_ready);
  assign out_head_valid = state == HEAD || (state == IDLE && head_valid && !head.weigh.on);
  always_comb begin
    out_head = head;
    if (state == HEAD) begin
      out_head = now;
      out_head.pages = now.pages << now.weigh.blocks_log2;
      out_head.count = count;
      out_head.last_rank = '0;
    end
  end
  assign hit_ready = state == PASS ? out_hit_ready : weights_ready;
  assign out_hit_valid = state == PASS ? hit_valid : pack_valid;
  assign out_hit_beat = state == PASS ? hit_beat :
      '{last: pack_last, count: pack_last ? LAST_WORDS : 5'd16};
  assign out_hit_ids = state == PASS ? hit_ids : pack;
  assign out_hit_ranks = hit_ranks;

  stream_if #(
      .WIDTH($bits(hit_head_t))
  ) check_head (
      .clk,
      .rst,
      .valid(out_head_valid),
      .ready(out_head_ready),
      .data(out_head)
  );
  stream_if #(
      .WIDTH($bits(hit_beat_t) + 512)
  ) check_hit (
      .clk,
      .rst,
      .valid(out_hit_valid),
      .ready(out_hit_ready),
      .data({out_hit_beat, out_hit_ids})
  );
endmodule
