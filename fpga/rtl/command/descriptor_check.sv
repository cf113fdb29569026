// Decides whether a descriptor may be executed: layout::Validate (proto/layout/validate.cc) for a query ring, in the
// same order with the same status and detail, then what this card serves of it (STATUS_UNSUPPORTED).
//
// Stream in: a descriptor with its queue and index; kv_tokens is 0, since the card holds no K and V. Stream out: the
// verdict and the sizes; the input is held until it is taken. All rules are looked at at once, then one a cycle in
// their order, up to the first that is broken. Latency: 18 cycles for a good descriptor, up to 80 for a bad one.
// Stalls: `verdict` alone.
module descriptor_check
  import mnemo_pkg::*;
  import command_types::*;
#(
    parameter int CHANNELS = 2,
    parameter int G = 4,
    parameter int BANK_WORDS = 4096
) (
    input  logic                clk,
    input  logic                rst,
    input  logic                fetched_valid,
    output logic                fetched_ready,
    input  fetched_t            fetched,
    output logic                verdict_valid,
    input  logic                verdict_ready,
    output logic         [15:0] status,
    output logic         [15:0] detail,
    output block_units_t        block
);
  localparam logic [15:0] MAX_K = 16'd16384;
  localparam int PASSES = 16;
  localparam int MAX_GROUP_HERE = (PASSES * G < 64) ? PASSES * G : 64;
  // Tokens of an index below which every virtual page has a number.
  localparam logic [31:0] MAX_END = 32'((2 ** 24 - CARD_MAX_CHANNELS) * PAGE_TOKENS);

  typedef struct packed {
    logic        broken;
    logic [15:0] status;
    logic [15:0] detail;
  } rule_t;

  typedef enum logic [1:0] {
    IDLE,
    SIZES,
    WALK,
    ANSWER
  } state_t;

  descriptor_t d;
  /* verilator lint_off UNUSEDSIGNAL */  // addresses are the fetchers'
  queue_t q;
  card_index_t index;
  /* verilator lint_on UNUSEDSIGNAL */
  assign d = fetched.taken.descriptor;
  assign q = fetched.taken.regs;
  assign index = fetched.index;

  state_t state;
  logic start, done;
  logic [47:0] payload_units, result_units;
  logic [9:0] page_words;
  logic list_full;
  logic [34:0] scan_words;

  descriptor_sizes #(
      .CHANNELS(CHANNELS),
      .G(G),
      .BANK_WORDS(BANK_WORDS)
  ) sizes (
      .clk,
      .rst,
      .start,
      .done,
      .descriptor(d),
      .dim(index.dim),
      .kv_format(index.kv_format),
      .payload_units,
      .result_units,
      .block,
      .page_words,
      .list_full,
      .scan_words
  );

  // Parts of rules, a cycle or two before them.
  logic gather, score, score_gather, latest, weighted, codes, cascade, no_group, dim_served;
  logic signed [32:0] low, high;
  logic [31:0] payload_region, result_region;  // lengths
  logic [32:0] payload_end, result_end;
  logic [5:0] entry_mask;
  logic [16:0] heads_end;
  logic overlap;

  always_ff @(posedge clk) begin
    gather <= d.op == OP_GATHER;
    score_gather <= d.op == OP_SCORE_GATHER;
    score <= d.op != OP_GATHER;
    latest <= d.op != OP_GATHER && d.select_op == SELECT_LATEST;
    weighted <= d.select_op == SELECT_WEIGHTED_SUM;
    codes <= d.format >= FORMAT_CODES2 && d.format <= FORMAT_CODES8;
    cascade <= d.op != OP_GATHER && d.k1 != '0;
    no_group <= d.group_op == GROUP_NONE;
    entry_mask <= (d.format <= FORMAT_CODES8) ? 6'd0 : ((d.flags & FLAG_PAGES64) != '0) ? 6'd63 : 6'd15;
    payload_region <= d.payload_region[0] ? q.length1 : q.length0;
    result_region <= d.result_region[0] ? q.length1 : q.length0;
    payload_end <= {1'b0, d.payload_offset} + {1'b0, d.payload_length};
    result_end <= {1'b0, d.result_offset} + {1'b0, d.result_length};
    dim_served <= index.dim == 16'd16 || index.dim == 16'd32 || index.dim == 16'd64 || index.dim == 16'd128 ||
        index.dim == 16'd256;
    heads_end <= 17'(d.heads) + 17'(d.first_head);
    overlap <= payload_end > {1'b0, d.result_offset} && result_end > {1'b0, d.payload_offset} &&
        d.payload_region == d.result_region;
    low <= '0;
    high <= '0;
    if (d.select_op == SELECT_THRESHOLD) begin
      unique case (d.group_op)
        GROUP_MAX: low <= 33'(RANK_FLOOR);
        GROUP_PLAIN_MAX: begin
          low  <= 33'(PLAIN_RANK_FLOOR);
          high <= -33'(PLAIN_RANK_FLOOR);
        end
        GROUP_EXP2_SUM: high <= 33'sd65536;
        default: begin
          low  <= -33'sd2147483648;
          high <= 33'sd2147483647;
        end
      endcase
    end
  end

  function automatic rule_t rule(input logic bad, input logic [15:0] answer, input logic [15:0] offset);
    return '{broken: bad, status: answer, detail: offset};
  endfunction

  function automatic logic has(input logic [7:0] mask, input logic [7:0] bit_number);
    return bit_number < 8'd8 && mask[bit_number[2:0]];
  endfunction

  localparam int RULES = 74;
  rule_t [RULES-1:0] rules;
  assign rules = {
    rule(d.op < OP_SCORE_SELECT || d.op > OP_SCORE_GATHER, STATUS_BAD_FIELD, DESCRIPTOR_AT_OP),
    rule(!q.ops[d.op[4:0]], STATUS_UNSUPPORTED, DESCRIPTOR_AT_OP),
    rule(d.epoch != q.epoch, STATUS_STALE_EPOCH, DESCRIPTOR_AT_EPOCH),
    rule(d.seq != fetched.taken.next_seq, STATUS_BAD_SEQUENCE, DESCRIPTOR_AT_SEQ),
    // CheckUnused
    rule(
        gather && d.flags != '0, STATUS_BAD_FIELD, DESCRIPTOR_AT_FLAGS
    ),
    rule(gather && d.group != '0, STATUS_BAD_FIELD, DESCRIPTOR_AT_GROUP),
    rule(gather && d.queries != '0, STATUS_BAD_FIELD, DESCRIPTOR_AT_QUERIES),
    rule(gather && d.score_op != '0, STATUS_BAD_FIELD, DESCRIPTOR_AT_SCORE_OP),
    rule(gather && d.group_op != '0, STATUS_BAD_FIELD, DESCRIPTOR_AT_GROUP_OP),
    rule(gather && d.select_op != '0, STATUS_BAD_FIELD, DESCRIPTOR_AT_SELECT_OP),
    rule(gather && d.begin_token != '0, STATUS_BAD_FIELD, DESCRIPTOR_AT_BEGIN_TOKEN),
    rule(gather && d.end_token != '0, STATUS_BAD_FIELD, DESCRIPTOR_AT_END_TOKEN),
    rule(gather && d.k1 != '0, STATUS_BAD_FIELD, DESCRIPTOR_AT_K1),
    rule(gather && d.threshold != '0, STATUS_BAD_FIELD, DESCRIPTOR_AT_THRESHOLD),
    // CheckIndex
    rule(
        d.index_id >= q.indexes, STATUS_BAD_FIELD, DESCRIPTOR_AT_INDEX_ID
    ),
    rule(index.exists == '0, STATUS_UNKNOWN_INDEX, DESCRIPTOR_AT_INDEX_ID),
    rule(d.index_generation != index.generation, STATUS_STALE_GENERATION, DESCRIPTOR_AT_INDEX_GENERATION),
    // CheckHeads
    rule(
        d.layer_slot >= index.layer_slots, STATUS_BAD_FIELD, DESCRIPTOR_AT_LAYER_SLOT
    ),
    rule({8'b0, d.first_head} >= index.heads, STATUS_BAD_FIELD, DESCRIPTOR_AT_FIRST_HEAD),
    rule(d.heads == '0, STATUS_BAD_FIELD, DESCRIPTOR_AT_HEADS),
    rule(heads_end > {1'b0, index.heads}, STATUS_BAD_FIELD, DESCRIPTOR_AT_HEADS),
    // CheckGather
    rule(
        gather && (index.kv_format == '0 || d.format != index.kv_format), STATUS_BAD_FIELD, DESCRIPTOR_AT_FORMAT
    ),
    rule(gather && d.k == '0, STATUS_BAD_FIELD, DESCRIPTOR_AT_K),
    rule(gather && d.k > q.max_k, STATUS_UNSUPPORTED, DESCRIPTOR_AT_K),
    // CheckQuery
    rule(
        score && (d.flags & ~FLAGS_KNOWN) != '0, STATUS_BAD_FIELD, DESCRIPTOR_AT_FLAGS
    ),
    rule(
        score && (d.format < FORMAT_CODES2 || d.format > FORMAT_MEANS || d.format != index.record_format),
        STATUS_BAD_FIELD,
        DESCRIPTOR_AT_FORMAT
    ),
    rule(score && (d.flags & FLAG_PAGES64) != '0 && codes, STATUS_BAD_FIELD, DESCRIPTOR_AT_FLAGS),
    rule(score_gather && (index.kv_format == '0 || !codes), STATUS_BAD_FIELD, DESCRIPTOR_AT_OP),
    rule(score && d.queries == '0, STATUS_BAD_FIELD, DESCRIPTOR_AT_QUERIES),
    rule(score && {8'b0, d.queries} > q.max_queries, STATUS_UNSUPPORTED, DESCRIPTOR_AT_QUERIES),
    // CheckScore
    rule(
        score && (d.select_op < SELECT_TOP_K || d.select_op > SELECT_LATEST), STATUS_BAD_FIELD, DESCRIPTOR_AT_SELECT_OP
    ),
    rule(score && !has(q.select_ops, d.select_op), STATUS_UNSUPPORTED, DESCRIPTOR_AT_SELECT_OP),
    rule(latest && d.score_op != '0, STATUS_BAD_FIELD, DESCRIPTOR_AT_SCORE_OP),
    rule(latest && !no_group, STATUS_BAD_FIELD, DESCRIPTOR_AT_GROUP_OP),
    rule(latest && d.group != '0, STATUS_BAD_FIELD, DESCRIPTOR_AT_GROUP),
    rule(
        score && !latest && (d.score_op < SCORE_DOT || d.score_op > SCORE_BLOCK_MEAN),
        STATUS_BAD_FIELD,
        DESCRIPTOR_AT_SCORE_OP
    ),
    rule(score && !latest && !has(q.score_ops, d.score_op), STATUS_UNSUPPORTED, DESCRIPTOR_AT_SCORE_OP),
    rule(
        score && !latest && !(d.score_op == SCORE_PAGE_BOUND ? d.format == FORMAT_BOUNDS :
         d.score_op == SCORE_BLOCK_MEAN ? d.format == FORMAT_MEANS : codes),
        STATUS_BAD_FIELD,
        DESCRIPTOR_AT_SCORE_OP
    ),
    rule(
        score && !latest && (d.group_op > GROUP_PLAIN_MAX || no_group != (d.score_op == SCORE_RELU_DOT)),
        STATUS_BAD_FIELD,
        DESCRIPTOR_AT_GROUP_OP
    ),
    rule(score && !latest && !has(q.group_ops, d.group_op), STATUS_UNSUPPORTED, DESCRIPTOR_AT_GROUP_OP),
    rule(score && !latest && (d.group == '0 || d.group > 8'(MAX_GROUP)), STATUS_BAD_FIELD, DESCRIPTOR_AT_GROUP),
    rule(score && !latest && {8'b0, d.group} > q.max_group, STATUS_UNSUPPORTED, DESCRIPTOR_AT_GROUP),
    // CheckQuery, the range
    rule(
        score && ((d.begin_token[5:0] & entry_mask) != '0 || d.begin_token > d.end_token),
        STATUS_BAD_FIELD,
        DESCRIPTOR_AT_BEGIN_TOKEN
    ),
    rule(
        score && ((d.end_token[5:0] & entry_mask) != '0 || d.end_token > fetched.tokens),
        STATUS_BAD_FIELD,
        DESCRIPTOR_AT_END_TOKEN
    ),
    rule(score_gather && d.end_token != '0, STATUS_BAD_FIELD, DESCRIPTOR_AT_END_TOKEN),
    // CheckSelect
    rule(
        score && weighted && score_gather, STATUS_BAD_FIELD, DESCRIPTOR_AT_SELECT_OP
    ),
    rule(score && weighted && d.format != FORMAT_CODES8, STATUS_BAD_FIELD, DESCRIPTOR_AT_FORMAT),
    rule(score && weighted && d.group != 8'd1, STATUS_BAD_FIELD, DESCRIPTOR_AT_GROUP),
    rule(score && weighted && d.group_op != GROUP_EXP2_SUM, STATUS_BAD_FIELD, DESCRIPTOR_AT_GROUP_OP),
    rule(score && weighted && d.flags != '0, STATUS_BAD_FIELD, DESCRIPTOR_AT_FLAGS),
    rule(score && weighted && d.k != '0, STATUS_BAD_FIELD, DESCRIPTOR_AT_K),
    rule(score && !weighted && d.k == '0, STATUS_BAD_FIELD, DESCRIPTOR_AT_K),
    rule(score && !weighted && d.k > q.max_k, STATUS_UNSUPPORTED, DESCRIPTOR_AT_K),
    rule(cascade && (d.format != FORMAT_CODES2 || d.k1 < d.k), STATUS_BAD_FIELD, DESCRIPTOR_AT_K1),
    rule(cascade && d.select_op != SELECT_TOP_K && d.select_op != SELECT_THRESHOLD, STATUS_BAD_FIELD, DESCRIPTOR_AT_K1),
    rule(cascade && q.cascade == '0, STATUS_UNSUPPORTED, DESCRIPTOR_AT_K1),
    rule(score && (33'(d.threshold) < low || 33'(d.threshold) > high), STATUS_BAD_FIELD, DESCRIPTOR_AT_THRESHOLD),
    // CheckMemory
    rule(
        d.payload_region >= q.regions, STATUS_BAD_REGION, DESCRIPTOR_AT_PAYLOAD_REGION
    ),
    rule({16'b0, d.payload_length} < payload_units, STATUS_BAD_FIELD, DESCRIPTOR_AT_PAYLOAD_LENGTH),
    rule(payload_end > {1'b0, payload_region}, STATUS_BAD_REGION, DESCRIPTOR_AT_PAYLOAD_OFFSET),
    rule(d.result_region >= q.regions, STATUS_BAD_REGION, DESCRIPTOR_AT_RESULT_REGION),
    rule({16'b0, d.result_length} < result_units, STATUS_BAD_FIELD, DESCRIPTOR_AT_RESULT_LENGTH),
    rule(result_end > {1'b0, result_region}, STATUS_BAD_REGION, DESCRIPTOR_AT_RESULT_OFFSET),
    rule(overlap, STATUS_BAD_REGION, DESCRIPTOR_AT_RESULT_OFFSET),
    // Bounds of this card.
    rule(
        d.op != OP_SCORE_SELECT, STATUS_UNSUPPORTED, DESCRIPTOR_AT_OP
    ),
    rule((d.flags & FLAG_BY_RANK) != '0, STATUS_UNSUPPORTED, DESCRIPTOR_AT_FLAGS),
    rule(d.group > 8'(MAX_GROUP_HERE), STATUS_UNSUPPORTED, DESCRIPTOR_AT_GROUP),
    rule(!dim_served, STATUS_UNSUPPORTED, DESCRIPTOR_AT_INDEX_ID),
    rule(d.k > 32'(MAX_K), STATUS_UNSUPPORTED, DESCRIPTOR_AT_K),
    // Long scans: two pages of scores fit a bank; the ranks of the listed pages do, though one lane has all of them.
    rule(
        block.long_scan && cascade && list_full, STATUS_UNSUPPORTED, DESCRIPTOR_AT_K1
    ),
    rule(block.long_scan && 32'({page_words, 1'b0}) > 32'(BANK_WORDS), STATUS_UNSUPPORTED, DESCRIPTOR_AT_GROUP),
    rule(block.long_scan && list_full, STATUS_UNSUPPORTED, DESCRIPTOR_AT_K),
    rule(!latest && d.end_token > MAX_END, STATUS_UNSUPPORTED, DESCRIPTOR_AT_END_TOKEN),
    rule(!latest && scan_words > 35'(BANK_WORDS), STATUS_UNSUPPORTED, DESCRIPTOR_AT_END_TOKEN)
  };

  // The walk goes from the top: the first rule is the last element.
  logic [RULES-1:0] broken;
  logic [6:0] at;

  assign start = state == IDLE && fetched_valid;
  assign verdict_valid = state == ANSWER;
  assign fetched_ready = verdict_valid && verdict_ready;

  always_ff @(posedge clk) begin
    if (rst) state <= IDLE;
    else begin
      unique case (state)
        IDLE: if (fetched_valid) state <= SIZES;
        SIZES: if (done) state <= WALK;
        WALK: if (broken == '0 || broken[RULES-1]) state <= ANSWER;
        ANSWER: if (verdict_ready) state <= IDLE;
        default: state <= IDLE;
      endcase
    end
    if (state == SIZES) begin
      at     <= 7'(RULES - 1);
      status <= STATUS_OK;
      detail <= NO_DETAIL;
      for (int i = 0; i < RULES; i++) broken[i] <= rules[i].broken;
    end
    if (state == WALK) begin
      at     <= at - 1'b1;
      broken <= broken << 1;
      if (broken[RULES-1]) begin
        status <= rules[at].status;
        detail <= rules[at].detail;
      end
    end
  end
endmodule
