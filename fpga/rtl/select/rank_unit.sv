// Rank codes of the 8 entries of a word: the largest term over the queries of the group.
//
// Streams: a word a cycle in, scores of 8 entries for the G queries of one pass; the passes of the same entries
// follow each other. Codes of 8 entries out after the last pass; 0 for an entry that does not count.
// `best` belongs to the pass of the word. Latency 3 + log2(G) cycles; nothing stalls it.
//
// Equals layout::MaxTerm with rank + 8191, layout::PlainMaxTerm with rank + 32768, and the maximum of
// layout::Ranks.
module rank_unit #(
    parameter int G = 4
) (
    input  logic                     clk,
    input  logic                     rst,
    input  logic                     plain,
    input  logic                     valid,
    input  logic                     first_pass,
    input  logic                     last_pass,
    input  logic                     last,        // of the sweep
    input  logic [G-1:0]             queries,     // of the pass
    input  logic [7:0]               counts,      // entries that count
    input  logic [G-1:0][15:0]       best,
    input  logic [7:0][G-1:0][15:0]  y,
    output logic                     out_valid,
    output logic                     out_last,
    output logic [7:0][15:0]         codes
);

  localparam int LEVELS = $clog2(G);
  localparam int STAGES = LEVELS + 2;

  typedef struct packed {
    logic       valid;
    logic       first_pass;
    logic       last_pass;
    logic       last;
    logic [7:0] counts;
  } tag_t;

  tag_t tag[STAGES];
  always_ff @(posedge clk) begin
    tag[0] <= '{valid: valid && !rst, first_pass: first_pass, last_pass: last_pass, last: last, counts: counts};
    for (int i = 1; i < STAGES; ++i) begin
      tag[i] <= tag[i-1];
      if (rst) tag[i].valid <= 1'b0;
    end
  end

  // Distance to the best, at least 0 for entries that count; the score itself for plain.
  logic [7:0][G-1:0][16:0] below;
  logic [7:0][G-1:0][15:0] score;
  logic [G-1:0] used;
  always_ff @(posedge clk) begin
    if (valid) begin
      used <= queries;
      score <= y;
      for (int e = 0; e < 8; ++e) begin
        for (int g = 0; g < G; ++g) below[e][g] <= {best[g][15], best[g]} - {y[e][g][15], y[e][g]};
      end
    end
  end

  for (genvar l = 0; l <= LEVELS; ++l) begin : level
    logic [7:0][(G>>l)-1:0][15:0] code;
    if (l == 0) begin : leaf
      always_ff @(posedge clk) begin
        if (tag[0].valid) begin
          for (int e = 0; e < 8; ++e) begin
            for (int g = 0; g < G; ++g) begin
              if (!used[g]) code[e][g] <= 16'd0;
              else if (plain) code[e][g] <= score[e][g] == 16'h8000 ? 16'd1 : score[e][g] ^ 16'h8000;
              else code[e][g] <= {4'h1, below[e][g][16:12] != 5'd0 ? 12'd0 : ~below[e][g][11:0]};
            end
          end
        end
      end
    end else begin : node
      always_ff @(posedge clk) begin
        if (tag[l].valid) begin
          for (int e = 0; e < 8; ++e) begin
            for (int i = 0; i < (G >> l); ++i) begin
              code[e][i] <= level[l-1].code[e][2*i+1] > level[l-1].code[e][2*i] ? level[l-1].code[e][2*i+1] :
                  level[l-1].code[e][2*i];
            end
          end
        end
      end
    end
  end

  // The largest over the passes.
  logic [7:0][15:0] largest;
  logic [7:0] counted;
  always_ff @(posedge clk) begin
    for (int e = 0; e < 8; ++e) begin
      if (tag[STAGES-1].valid && (tag[STAGES-1].first_pass || level[LEVELS].code[e][0] > largest[e])) begin
        largest[e] <= level[LEVELS].code[e][0];
      end
    end
    counted <= tag[STAGES-1].counts;
    out_valid <= tag[STAGES-1].valid && tag[STAGES-1].last_pass && !rst;
    out_last <= tag[STAGES-1].last;
  end

  always_comb begin
    for (int e = 0; e < 8; ++e) codes[e] = counted[e] ? largest[e] : 16'd0;
  end

endmodule
