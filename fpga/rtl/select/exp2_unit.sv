// Rank codes of the 8 entries of a word: the sum over the queries of the group of exp2 of the distance to the best.
//
// Streams: a word each PACE cycles in, scores of 8 entries for the G queries of one pass; the passes of the same
// entries follow each other. Codes of 8 entries, rank + 1, out after the last pass; 0 for an entry that does not
// count. `best` belongs to the pass of the word. ENTRIES entries a cycle: a term is a table of 16 values and a shift.
// `total` is the sum of all ranks since `clear`, with the last codes. Latency PACE + 6 + log2(G) cycles; nothing
// stalls it.
//
// Equals layout::Exp2Term, the sum of layout::Ranks, and the total of layout::ScoreSelect's threshold by share.
module exp2_unit #(
    parameter int G = 4,
    parameter int ENTRIES = 2,
    localparam int PACE = 8 / ENTRIES
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
    output logic [7:0][31:0]               codes,
    output logic [select_types::TOTAL-1:0] total
);

  localparam int LEVELS = $clog2(G);
  localparam int STAGES = 4 + LEVELS;
  localparam int STEP = $clog2(PACE);

  // Values of layout::Exp2Fraction for 0 to 15, shifted down by up to 3 octaves.
  function automatic logic [24:0] fraction(input logic [5:0] x);
    logic [24:0] entry;
    unique case (x[3:0])
      4'd0: entry = 25'd16777216;
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
    return entry >> x[5:4];
  endfunction

  // A word is held while its entries go through.
  logic busy;
  logic [STEP-1:0] step;
  logic [PACE-1:0][ENTRIES-1:0][G-1:0][15:0] held;
  logic [PACE-1:0][ENTRIES-1:0] held_counts;
  logic [G-1:0][15:0] held_best;
  logic [G-1:0] held_queries;
  logic held_first, held_last_pass, held_last;
  always_ff @(posedge clk) begin
    if (valid) begin
      held <= y;
      held_counts <= counts;
      held_best <= best;
      held_queries <= queries;
      held_first <= first_pass;
      held_last_pass <= last_pass;
      held_last <= last;
    end
    step <= valid ? '0 : step + STEP'(1);
    busy <= (valid || (busy && step != STEP'(PACE - 1))) && !rst;
  end

  typedef struct packed {
    logic               valid;
    logic               first_pass;
    logic               last_pass;
    logic               last;
    logic [STEP-1:0]    step;
    logic [ENTRIES-1:0] counts;
  } tag_t;
  tag_t tag[STAGES];
  always_ff @(posedge clk) begin
    tag[0] <= '{
        valid: busy && !rst,
        first_pass: held_first,
        last_pass: held_last_pass,
        last: held_last,
        step: step,
        counts: held_counts[step]
    };
    for (int i = 1; i < STAGES; ++i) begin
      tag[i] <= tag[i-1];
      if (rst) tag[i].valid <= 1'b0;
    end
  end

  // Terms: distance, table, two shifts.
  logic [ENTRIES-1:0][G-1:0][16:0] below;
  logic [ENTRIES-1:0][G-1:0][24:0] high;
  logic [ENTRIES-1:0][G-1:0][2:0] octaves;  // in fours
  logic [ENTRIES-1:0][G-1:0] far;
  logic [ENTRIES-1:0][G-1:0][24:0] term;
  logic [G-1:0] used;
  always_ff @(posedge clk) begin
    used <= held_queries;
    for (int e = 0; e < ENTRIES; ++e) begin
      for (int g = 0; g < G; ++g) begin
        below[e][g] <= {held_best[g][15], held_best[g]} - {held[step][e][g][15], held[step][e][g]};
        high[e][g] <= fraction(below[e][g][5:0]);
        octaves[e][g] <= below[e][g][8:6];
        far[e][g] <= below[e][g][16:9] != 8'd0 || !used[g];
        term[e][g] <= far[e][g] ? 25'd0 : high[e][g] >> {octaves[e][g], 2'b00};
      end
    end
  end

  // Their sum over the queries; 0 for entries that do not count.
  for (genvar l = 0; l <= LEVELS; ++l) begin : level
    logic [ENTRIES-1:0][(G>>l)-1:0][24+LEVELS:0] added;
    if (l == 0) begin : leaf
      always_ff @(posedge clk) begin
        for (int e = 0; e < ENTRIES; ++e) begin
          for (int g = 0; g < G; ++g) added[e][g] <= tag[2].counts[e] ? (25 + LEVELS)'(term[e][g]) : '0;
        end
      end
    end else begin : node
      always_ff @(posedge clk) begin
        for (int e = 0; e < ENTRIES; ++e) begin
          for (int i = 0; i < (G >> l); ++i) added[e][i] <= level[l-1].added[e][2*i] + level[l-1].added[e][2*i+1];
        end
      end
    end
  end

  // Sums over the passes, plus 1 for an entry that counts.
  tag_t now;
  assign now = tag[3+LEVELS];
  logic [PACE-1:0][ENTRIES-1:0][31:0] sums;
  logic [26+LEVELS:0] both, part;
  logic total_valid;
  always_comb begin
    both = '0;
    for (int e = 0; e < ENTRIES; ++e) both = both + (27 + LEVELS)'(level[LEVELS].added[e][0]);
  end
  always_ff @(posedge clk) begin
    if (now.valid) begin
      for (int e = 0; e < ENTRIES; ++e) begin
        sums[now.step][e] <= (now.first_pass ? 32'(now.counts[e]) : sums[now.step][e]) + 32'(level[LEVELS].added[e][0]);
      end
    end
    part <= both;
    total_valid <= now.valid && !rst;
    if (clear) total <= '0;
    else if (total_valid) total <= total + select_types::TOTAL'(part);
    out_valid <= now.valid && now.last_pass && now.step == STEP'(PACE - 1) && !rst;
    out_last <= now.last;
  end
  assign codes = sums;

  if (ENTRIES != 1 && ENTRIES != 2 && ENTRIES != 4) $error("a word takes 8, 4 or 2 cycles");

endmodule
