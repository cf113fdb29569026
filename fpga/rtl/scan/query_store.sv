// Codes and parameters of the queries of two jobs.
//
// Stream: query beats of jobs in order; those of a job are taken while an older one is in use, and `filled`
// tells the job slots whose queries are complete. job_done frees the oldest.
// Query q is query q mod G of pass q / G. Codes are stored by position: word w of a segment has codes 4 i + w
// of its 16 groups of 4, as tables are built. Latency: codes 1 cycle after code_at and base_code_at, those of the base
// for this cycle alone; parameters without a register. Stalls: query_ready, for 4 cycles after a beat of codes and
// while both slots are in use; base_code_ready, while a beat of codes is written.
module query_store
  import card_types::*;
#(
    parameter int G = 4
) (
    input  logic                             clk,
    input  logic                             rst,
    input  logic                             query_valid,
    output logic                             query_ready,
    input  query_head_t                      query_head,
    input  logic        [511:0]              query_data,
    input  logic                             job_done,
    output logic        [  3:0]              filled,
    input  logic                             code_read,
    input  logic        [  9:0]              code_at,     // {slot, pass, segment, word}
    output logic        [G-1:0][15:0][  7:0] codes,
    input  logic                             base_code_read,
    output logic                             base_code_ready,
    input  logic        [  9:0]              base_code_at,
    output logic        [G-1:0][15:0][  7:0] base_codes,
    input  logic        [  4:0]              base_at,     // {slot, pass}
    output logic        [G-1:0][ 15:0]       base_multiplier,
    output logic        [G-1:0][  7:0]       base_shift,
    input  logic        [  4:0]              sum_at,
    output logic        [G-1:0][  7:0]       score_shift,
    output logic        [G-1:0][ 16:0]       score_sum,
    input  logic        [  4:0]              multiplier_at,
    output logic        [G-1:0][ 15:0]       score_multiplier,
    output logic        [G-1:0][ 15:0]       score_weight
);
  localparam int LOG = $clog2(G);

  logic [1:0] job, done_job;  // job slots, as row_source counts them
  logic slot;
  logic valid;  // a beat at hand
  query_head_t head;
  logic [511:0] data;
  logic [1:0] word;
  logic ends, take;
  logic [3:0] pass;
  logic [G-1:0] which;
  logic [15:0][7:0] words;
  logic writes;  // codes
  logic [9:0] base_or_written;

  assign ends = head.is_param || word == 2'd3;
  assign slot = job[0];
  // The job before the last one has the same place.
  assign query_ready = !valid && !filled[{!job[1], job[0]}];
  assign take = query_valid && query_ready;
  assign pass = 4'(head.query >> LOG);
  assign writes = valid && !head.is_param;
  assign base_code_ready = !writes;
  assign base_or_written = writes ? {slot, pass, head.segment, word} : base_code_at;
  query_param_t param;
  assign param = query_param_t'(data[$bits(query_param_t)-1:0]);
  always_comb begin
    for (int g = 0; g < G; ++g) which[g] = G == 1 || 32'(head.query) % G == g;
    for (int i = 0; i < 16; ++i) words[i] = data[(32*i)+8*32'(word)+:8];
  end

  always_ff @(posedge clk) begin
    if (rst) begin
      job <= '0;
      done_job <= '0;
      valid <= 1'b0;
      filled <= '0;
    end else begin
      if (take) valid <= 1'b1;
      else if (valid && ends) valid <= 1'b0;
      if (valid && ends && head.last) begin
        filled[job] <= 1'b1;
        job <= job + 2'd1;
      end
      if (job_done) begin
        filled[done_job] <= 1'b0;
        done_job <= done_job + 2'd1;
      end
    end
    if (take) begin
      head <= query_head;
      data <= query_data;
      word <= '0;
    end else word <= word + 2'd1;
  end

  for (genvar g = 0; g < G; ++g) begin : g_query
    ram_block_two #(
        .WIDTH(128),
        .DEPTH(1024)
    ) code (
        .clk,
        .en(writes ? which[g] : base_code_read),
        .we(writes),
        .addr(base_or_written),
        .wdata(words),
        .rdata(base_codes[g]),
        .en2(code_read),
        .addr2(code_at),
        .rdata2(codes[g])
    );
    ram_lut #(
        .WIDTH(24),
        .DEPTH(32)
    ) base_param (
        .clk,
        .we(valid && head.is_param && which[g]),
        .waddr({slot, pass}),
        .wdata({param.multiplier, param.shift}),
        .raddr(base_at),
        .rdata({base_multiplier[g], base_shift[g]})
    );
    ram_lut #(
        .WIDTH(25),
        .DEPTH(32)
    ) sum_param (
        .clk,
        .we(valid && head.is_param && which[g]),
        .waddr({slot, pass}),
        .wdata({param.shift, param.sum}),
        .raddr(sum_at),
        .rdata({score_shift[g], score_sum[g]})
    );
    ram_lut #(
        .WIDTH(32),
        .DEPTH(32)
    ) multiplier_param (
        .clk,
        .we(valid && head.is_param && which[g]),
        .waddr({slot, pass}),
        .wdata({param.weight, param.multiplier}),
        .raddr(multiplier_at),
        .rdata({score_weight[g], score_multiplier[g]})
    );
  end

  stream_if #(
      .WIDTH($bits(query_head_t) + 512)
  ) check_query (
      .clk,
      .rst,
      .valid(query_valid),
      .ready(query_ready),
      .data({query_head, query_data})
  );
endmodule
