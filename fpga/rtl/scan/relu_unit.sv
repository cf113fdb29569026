// Rank codes of weighted ReLU: sums over all queries of weight * max(0, y), a page at a time, pass after pass.
//
// Streams: steps of scores of E = S / G entries and G queries, those of a page's pass one after the other; a step may
// come each cycle and nothing stalls it. Steps of other jobs, and those with `none`, go through as they are. Of a ReLU job
// the last pass alone gives beats, one each G / 2 steps: S / 2 codes of 32 bits, the rank shifted to above 0, and 0 for
// an entry that does not count. Their heads have pass 0 and count beats of codes. `weight` belongs to the step.
// Latency: 5 cycles of codes, none of other steps: these come at least 6 cycles after the last step of a ReLU job.
//
// Equals layout::ReluTerm and the sums of layout::Ranks.
module relu_unit #(
    parameter int G = 4,
    parameter int S = 16
) (
    input  logic                       clk,
    input  logic                       rst,
    input  logic                       valid,
    input  logic                       relu,
    input  logic                       last_pass,
    input  card_types::score_head_t    head,
    input  logic [S/G-1:0][G-1:0][15:0] y,
    input  logic [G-1:0][15:0]         weight,
    output logic                       out_valid,
    output logic                       dropped,   // a step that gives no beat
    output card_types::score_head_t    out_head,
    output logic [S*16-1:0]            out_y
);
  import card_types::*;

  localparam int E = S / G;
  localparam int STEPS = G / 2;  // of a beat of codes
  localparam int ROWS = 64 / E;  // steps of a pass
  localparam int ROW = $clog2(ROWS);
  localparam int SUM = 37;  // 64 products of 31 bits
  localparam int SHIFT = 5;  // layout::kReluRankShift

  typedef struct packed {
    logic        valid;
    logic        last_pass;
    score_head_t head;
  } tag_t;
  tag_t tag[4];
  wire direct = !relu || head.none;
  always_ff @(posedge clk) begin
    tag[0] <= '{valid: valid && !direct && !rst, last_pass: last_pass, head: head};
    for (int i = 1; i < 4; ++i) begin
      tag[i] <= tag[i-1];
      if (rst) tag[i].valid <= 1'b0;
    end
  end

  // Products in two registers, then their sum over the queries.
  logic [E-1:0][G-1:0][15:0] positive;
  logic [G-1:0][15:0] weight1;
  logic first_pass;  // of tag[2]
  always_ff @(posedge clk) begin
    weight1 <= weight;
    first_pass <= tag[1].head.pass == 4'd0;
    for (int e = 0; e < E; ++e) for (int g = 0; g < G; ++g) positive[e][g] <= y[e][g][15] ? 16'd0 : y[e][g];
  end
  logic [E-1:0][34:0] of_pass;
  for (genvar e = 0; e < E; ++e) begin : g_entry
    logic signed [31:0] product[G];
    function automatic logic [34:0] sum_of(input logic signed [31:0] terms[G]);
      sum_of = '0;
      for (int g = 0; g < G; ++g) sum_of = sum_of + 35'(terms[g]);
    endfunction
    always_ff @(posedge clk) begin
      if (tag[0].valid) begin
        for (int g = 0; g < G; ++g) product[g] <= $signed(positive[e][g]) * $signed(weight1[g]);
      end
      if (tag[1].valid) of_pass[e] <= sum_of(product);
    end
  end

  // Sums of a page's entries over the passes, by step.
  logic [E-1:0][SUM-1:0] sum_before, sum_after;
  wire [ROW-1:0] row = tag[2].head.at[ROW-1:0];
  ram_lut #(
      .WIDTH(E * SUM),
      .DEPTH(ROWS)
  ) sums (
      .clk,
      .we(tag[2].valid),
      .waddr(row),
      .wdata(sum_after),
      .raddr(row),
      .rdata(sum_before)
  );
  always_comb begin
    sum_after = 'x;
    if (tag[2].valid) begin  // else a simulator has nothing to add
      for (int e = 0; e < E; ++e) sum_after[e] = (first_pass ? '0 : sum_before[e]) + SUM'($signed(of_pass[e]));
    end
  end
  logic [E-1:0][31:0] code;  // signed, of all entries
  always_ff @(posedge clk) begin
    if (tag[2].valid) for (int e = 0; e < E; ++e) code[e] <= sum_after[e][SHIFT+:32];
  end

  // Steps become beats.
  logic [STEPS-1:0][E-1:0][31:0] codes;
  logic [STEPS-1:0][E-1:0] counts;
  logic coded;  // a beat of codes
  score_head_t head_then;
  wire [5:0] at = tag[3].head.at;
  wire [5:0] step = at & 6'(STEPS - 1);
  wire sends = tag[3].last_pass && step == 6'(STEPS - 1);
  always_ff @(posedge clk) begin
    for (int i = 0; i < STEPS; ++i) begin
      if (tag[3].valid && step == 6'(i)) begin  // between steps heads stay
        for (int e = 0; e < E; ++e) begin
          codes[i][e] <= tag[3].head.counts[e] ? {!code[e][31], code[e][30:0]} : 32'd0;
        end
        counts[i] <= tag[3].head.counts[E-1:0];
      end
    end
    head_then <= tag[3].head;
    coded <= tag[3].valid && sends && !rst;
    dropped <= tag[3].valid && !sends && !rst;
  end
  always_comb begin
    out_head = head;
    if (coded) begin
      out_head = head_then;
      out_head.pass = 4'd0;
      out_head.at = head_then.at >> $clog2(STEPS);
      out_head.counts = 8'(counts);
    end
  end
  assign out_valid = coded || (valid && direct);
  assign out_y = coded ? codes : y;

`ifndef SYNTHESIS
  wire under_way = coded || tag[0].valid || tag[1].valid || tag[2].valid || tag[3].valid;
  assert property (@(posedge clk) disable iff (rst) valid && direct |-> !under_way);
`endif

  if (G < 2 || S > 16) $error("a beat holds S / 2 codes, at most 8");

endmodule
