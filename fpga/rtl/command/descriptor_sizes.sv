// The sizes of a descriptor: layout::PayloadBytes and layout::ResultBytes (proto/layout/validate.cc) in units of 64
// bytes, rounded up, and the words of a score bank that its scan takes. Where the scores take more than a bank, it takes
// words of the largest ones of pages; `list_full` says that more pages of one lane may be listed than its list
// and the ranks in a bank have room for. With a bound the ranks of all pages have to fit a bank; where they do not, words
// are too many. One multiplier makes all products.
//
// Inputs are held from `start` to `done`. Latency: 14 cycles. Nothing stalls it. Exact for k below 2^24 and dims up
// to kMaxDim, whatever the other fields are: no product overflows.
module descriptor_sizes
  import mnemo_pkg::*;
  import command_types::*;
#(
    parameter int CHANNELS = 2,
    parameter int G = 4,
    parameter int BANK_WORDS = 4096
) (
    input  logic                clk,
    input  logic                rst,
    input  logic                start,
    output logic                done,           // until the next start
    /* verilator lint_off UNUSEDSIGNAL */  // sizes depend on some fields alone
    input  descriptor_t         descriptor,
    /* verilator lint_on UNUSEDSIGNAL */
    input  logic         [15:0] dim,
    input  logic         [ 7:0] kv_format,
    output logic         [47:0] payload_units,
    output logic         [47:0] result_units,
    output block_units_t        block,
    output logic         [ 9:0] page_words,   // of one page
    output logic                list_full,    // by k1, without it by k
    output logic         [34:0] scan_words
);
  localparam int CHANNELS_LOG2 = $clog2(CHANNELS);
  localparam int G_LOG2 = $clog2(G);
  localparam int LIST_PAGES = BANK_WORDS * (G < 4 ? G : 4) / 8;
  localparam int STEPS = 13;

  logic [STEPS-1:0] step;  // the bit of the present one
  logic [25:0] a;
  logic [16:0] b;
  logic [42:0] product;
  logic [25:0] pages, rows, rows8;  // rows8: words of 8 rows
  logic [6:0] passes;
  logic [12:0] kv_bytes;
  logic [23:0] result_block;  // units
  logic [15:0] factor;
  logic [36:0] k_kv;
  logic [38:0] sum;
  logic [43:0] low;
  logic [54:0] bytes;
  logic [32:0] maxima;
  logic [29:0] words;
  // The kind of the descriptor and of its keys and values, a cycle after `start`.
  logic
      gather, score_gather, codes, relu, bounded, by_pages, many_rows, empty, top_k, weighted, maximum, ranks, cascade;
  logic halves, floats, scaled_halves, scaled_bytes;

  always_ff @(posedge clk) begin
    gather        <= descriptor.op == OP_GATHER;
    score_gather  <= descriptor.op == OP_SCORE_GATHER;
    codes         <= descriptor.format <= FORMAT_CODES8;
    relu          <= descriptor.score_op == SCORE_RELU_DOT;
    bounded       <= descriptor.select_op == SELECT_THRESHOLD;
    top_k         <= descriptor.select_op == SELECT_TOP_K;
    weighted      <= descriptor.select_op == SELECT_WEIGHTED_SUM;
    maximum       <= descriptor.group_op == GROUP_MAX || descriptor.group_op == GROUP_PLAIN_MAX;
    ranks         <= (descriptor.flags & FLAG_RANKS) != '0;
    empty         <= descriptor.begin_token == descriptor.end_token;
    cascade       <= descriptor.k1 != '0;
    halves        <= kv_format == FORMAT_F16 || kv_format == FORMAT_BF16;
    floats        <= kv_format == FORMAT_F32;
    scaled_halves <= kv_format == FORMAT_SCALED_KEYS;
    scaled_bytes  <= kv_format == FORMAT_SCALED_BYTES;
  end
  // The rank of a page is the largest one of its entries. With a bound all entries are ranked anew.
  assign by_pages = !relu && (bounded || top_k) && maximum;
  assign bytes = {product[34:0], 20'b0} + 55'(low);

  // Sums that need no product, a cycle before their use.
  always_ff @(posedge clk) begin
    pages <= 26'((descriptor.end_token - 32'd1) >> 6) - 26'(descriptor.begin_token >> 6) + 26'd1;
    rows <= empty ? '0 : 26'((27'(pages) + 27'(CHANNELS - 1)) >> CHANNELS_LOG2);
    rows8 <= 26'((27'(rows) + 27'd7) >> 3);
    // Ranks of weighted ReLU are stored once for all passes.
    passes <= relu ? 7'd1 : 7'((9'(descriptor.group) + 9'(G - 1)) >> G_LOG2);
    kv_bytes <= '0;
    if (halves) kv_bytes <= {1'b0, dim[9:0], 2'b0};
    if (floats) kv_bytes <= {dim[9:0], 3'b0};
    if (scaled_halves) kv_bytes <= {1'b0, dim[9:0], 2'b0} + 13'd4;
    if (scaled_bytes) kv_bytes <= {2'b0, dim[9:0], 1'b0} + 13'd4;
    if (weighted) result_block <= 24'(dim[9:3]) + 24'd1;
    else if (ranks) result_block <= 24'(({2'b0, descriptor.k[23:0], 1'b0} + 27'd19) >> 4);
    else result_block <= 24'(({3'b0, descriptor.k[23:0]} + 27'd19) >> 4);
    factor <= gather ? {8'b0, descriptor.heads} : block.blocks;
    sum <= (gather ? '0 : {9'b0, result_block, 6'b0}) + ((gather || score_gather) ? {2'b0, k_kv} : '0);
    product <= a * b;
  end

  // The operands of a step.
  logic [25:0] a_next;
  logic [16:0] b_next;
  always_comb begin
    a_next = '0;
    b_next = '0;
    if (step[0]) {a_next, b_next} |= {18'b0, descriptor.queries, 9'b0, descriptor.heads};
    if (step[1]) {a_next, b_next} |= {18'b0, descriptor.group, 1'b0, dim};
    if (step[2]) {a_next, b_next} |= {rows, 10'b0, passes};
    if (step[3]) {a_next, b_next} |= {2'b0, descriptor.k[23:0], 4'b0, kv_bytes};
    if (step[4]) {a_next, b_next} |= {2'b0, descriptor.k[23:0], 9'b0, descriptor.heads};
    if (step[5]) {a_next, b_next} |= {rows8, 10'b0, passes};
    if (step[6]) {a_next, b_next} |= {2'b0, block.payload_block, 1'b0, block.blocks};
    if (step[8]) {a_next, b_next} |= {6'b0, sum[19:0], 1'b0, factor};
    if (step[9]) {a_next, b_next} |= {7'b0, sum[38:20], 1'b0, factor};
  end

  // A product of step n's operands is there in step n + 2.
  always_ff @(posedge clk) begin
    if (rst) begin
      step <= '0;
      done <= 1'b0;
    end else begin
      step <= start ? STEPS'(1) : {step[STEPS-2:0], 1'b0};
      if (start) done <= 1'b0;
      else if (step[STEPS-1]) done <= 1'b1;
    end
    a <= a_next;
    b <= b_next;
    if (step[2]) block.blocks <= product[15:0];
    if (step[3]) block.payload_block <= 24'((product[24:0] + 25'd63) >> 6);
    if (step[4]) begin
      words               <= product[29:0];
      block.payload_block <= block.payload_block + ((24'(descriptor.group) + 24'd7) >> 3);
    end
    if (step[5]) k_kv <= product[36:0];
    if (step[6] && gather) payload_units <= (48'(product[31:0]) + 48'd15) >> 4;
    if (step[7]) maxima <= product[32:0];
    if (step[8] && !gather) payload_units <= (descriptor.select_op == SELECT_LATEST) ? '0 : 48'(product);
    if (step[10]) low <= 44'(product);
    if (step[11]) result_units <= 48'((bytes + 55'd63) >> 6);
    block.result_block <= result_block;
    block.long_scan <= by_pages && (codes ? {words, 3'b0} : 33'(words)) > 33'(BANK_WORDS);
    // Other scans may take both banks, each its half. Ranks of weighted ReLU take half of the words.
    if (block.long_scan) scan_words <= (bounded && !cascade && many_rows) ? '1 : 35'(maxima);
    else if (!codes) scan_words <= (35'(words) + 35'd1) >> 1;
    else scan_words <= relu ? {4'b0, words, 1'b0} : {3'b0, words, 2'b0};
    many_rows <= rows > 26'(LIST_PAGES);
    list_full <= many_rows &&
        (cascade ? descriptor.k1 > 32'(LIST_PAGES) : !bounded && descriptor.k > 32'(LIST_PAGES));
    page_words <= codes ? {passes, 3'b0} : {3'b0, passes};
  end
endmodule
