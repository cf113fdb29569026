// Rank codes of the 8 entries of a word: the sum over the queries of the group of exp2 of the distance to the best.
//
// Streams: a word at most each 8 cycles in, scores of 8 entries for the G queries of one pass; the passes of the same
// entries follow each other. A word, its `counts`, `best` and `queries` stand for 8 cycles, in which its entries go
// through one by one. A code of an entry, rank + 1, out a cycle in the last pass; 0 for an entry that does not count.
// `best` belongs to the pass of the word. A term is a table of 16 values and a shift.
// `total` is the sum of all ranks since `clear`, a cycle behind the last code. Latency of an entry 5 + log2(G) cycles;
// nothing stalls it.
//
// Equals layout::Exp2Term, the sum of layout::Ranks, and the total of layout::ScoreSelect's threshold by share.
module exp2_unit #(
    parameter int G = 4
) (
    input  logic                           clk,
    input  logic                           rst,
    input  logic                           clear,
    input  logic                           valid,
    input  logic                           first_pass,
    input  logic                           last_pass,
    input  logic                           last,        // of the sweep
    input  logic [G-1:0]                   queries,     // of the pass
    input  logic [7:0]                     counts,      // entries that count
    input  logic [G-1:0][15:0]             best,
    input  logic [7:0][G-1:0][15:0]        y,
    output logic                           out_valid,
    output logic                           out_last,
    output logic [31:0]                    code,
    output logic [select_types::TOTAL-1:0] total
);

  localparam int LEVELS = $clog2(G);
  localparam int STAGES = 4 + LEVELS;

  // Values of layout::Exp2Fraction for 0 to 15, shifted down by up to 3 octaves.
  function automatic logic [24:0] fraction(input logic [5:0] x);
    logic [24:0] entry;
    unique case (x[3:0])
      4'd0: entry = 25'd0;
      4'd1: entry = 25'd16065917;
      4'd2: entry = 25'd15384775;
      4'd3: entry = 25'd14732511;
      4'd4: entry = 25'd14107901;
      4'd5: entry = 25'd13509772;
      4'd6: entry = 25'd12937002;
      4'd7: entry = 25'd12388516;
      4'd8: entry = 25'd11863283;
      4'd9: entry = 25'd11360319;
      4'd10: entry = 25'd10878679;
      4'd11: entry = 25'd10417458;
      4'd12: entry = 25'd9975792;
      4'd13: entry = 25'd9552851;
      4'd14: entry = 25'd9147842;
      default: entry = 25'd8760003;
    endcase
    entry[24] = x[3:0] == 4'd0;
    return entry >> x[5:4];
  endfunction

  // The entry that goes through; 0 while there is no word.
  logic [2:0] step;
  wire busy = valid || step != 3'd0;
  typedef struct packed {
    logic       valid;
    logic       first_pass;
    logic       last_pass;
    logic       last;
    logic [2:0] step;
    logic       counts;
  } tag_t;
  tag_t tag[STAGES];
  always_ff @(posedge clk) begin
    step <= rst ? 3'd0 : step + 3'(busy);
    tag[0].valid <= busy && !rst;
    tag[0].step <= step;
    tag[0].counts <= counts[step];
    if (valid) begin
      tag[0].first_pass <= first_pass;
      tag[0].last_pass <= last_pass;
      tag[0].last <= last;
    end
    for (int i = 1; i < STAGES; ++i) begin
      tag[i] <= tag[i-1];
      if (rst) tag[i].valid <= 1'b0;
    end
  end

  // Terms: distance, at least 0 for entries that count; table; two shifts. 0 for entries that do not count.
  logic [G-1:0][15:0] below;
  logic [G-1:0][24:0] high;
  logic [G-1:0][2:0] octaves;  // in fours
  logic [G-1:0] used, far;
  logic [G-1:0][24:0] term;
  always_ff @(posedge clk) begin
    used <= counts[step] ? queries : '0;
    for (int g = 0; g < G; ++g) begin
      // The table's address moves always: with an enable, synthesis would put the table before it.
      below[g] <= best[g] - y[step][g];
      if (tag[0].valid) begin
        high[g] <= fraction(below[g][5:0]);
        octaves[g] <= below[g][8:6];
        far[g] <= below[g][15:9] != 7'd0 || !used[g];
      end
      if (tag[1].valid) term[g] <= far[g] ? 25'd0 : high[g] >> {octaves[g], 2'b00};
    end
  end

  // Their sum over the queries.
  for (genvar l = 0; l <= LEVELS; ++l) begin : level
    logic [(G>>l)-1:0][24+LEVELS:0] added;
    if (l == 0) begin : leaf
      always_comb for (int g = 0; g < G; ++g) added[g] = (25 + LEVELS)'(term[g]);
    end else begin : node
      always_ff @(posedge clk) begin
        if (tag[1+l].valid) begin
          for (int i = 0; i < (G >> l); ++i) added[i] <= level[l-1].added[2*i] + level[l-1].added[2*i+1];
        end
      end
    end
  end
  wire [24+LEVELS:0] sum = level[LEVELS].added[0];

  // Over the passes: codes of the passes so far. An entry's next pass comes 8 cycles later.
  localparam int NOW = STAGES - 2;  // beside `sum`
  logic [31:0] stored, so_far;
  ram_lut #(
      .WIDTH(32),
      .DEPTH(8)
  ) codes (
      .clk,
      .we(tag[NOW+1].valid),
      .waddr(tag[NOW+1].step),
      .wdata(code),
      .raddr(tag[NOW-1].step),
      .rdata(stored)
  );
  always_ff @(posedge clk) begin
    so_far <= tag[NOW-1].first_pass ? 32'(tag[NOW-1].counts) : stored;
    code <= so_far + 32'(sum);
    out_valid <= tag[NOW].valid && tag[NOW].last_pass && !rst;
    out_last <= tag[NOW].last && tag[NOW].step == 3'd7;
    if (clear) total <= '0;
    else if (tag[NOW].valid) total <= total + select_types::TOTAL'(sum);
  end

`ifndef SYNTHESIS
  assert property (@(posedge clk) disable iff (rst) valid |-> step == 3'd0);
`endif

endmodule
