// The largest score of each query of a lane, over the entries that count, in both banks.
//
// Streams: beats of scores as score_store passes them, one a cycle; nothing stalls them. A beat is in after 3
// cycles. `value` of a bank's query follows `query` by a cycle; -32768 where no page or no entry counts.
//
// Equals `best` of layout::Ranks for the entries of one lane.
module best_store #(
    parameter int G = 4,
    parameter int S = 16
) (
    input  logic                    clk,
    input  logic                    rst,
    input  logic                    beat_valid,
    input  logic                    beat_bank,
    input  logic                    beat_first,
    /* verilator lint_off UNUSEDSIGNAL */  // places are score_store's
    input  card_types::score_head_t beat_head,
    /* verilator lint_on UNUSEDSIGNAL */
    input  logic [S*16-1:0]         beat_y,
    output logic [G-1:0][15:0]      largest,     // of a beat, 2 cycles after it
    input  logic                    bank,
    input  logic [5:0]              query,
    output logic [15:0]             value
);

  localparam int E = S / G;
  localparam int PAIRS = E > 1 ? E / 2 : 1;
  localparam int QUERY = $clog2(G);
  localparam logic [15:0] LOWEST = 16'h8000;

  function automatic logic [15:0] larger(input logic [15:0] a, input logic [15:0] b);
    larger = $signed(a) > $signed(b) ? a : b;
  endfunction

  // Entries in pairs, then all of them.
  logic [1:0] valid;
  logic [1:0] first;
  logic [1:0] none;
  logic [4:0] at[2];  // bank and pass
  logic [PAIRS-1:0][G-1:0][15:0] pair;
  logic [E-1:0][G-1:0][15:0] counted;
  always_comb begin
    for (int e = 0; e < E; ++e) begin
      for (int g = 0; g < G; ++g) begin
        counted[e][g] = beat_head.counts[e] ? beat_y[(e*G+g)*16+:16] : LOWEST;
      end
    end
  end
  always_ff @(posedge clk) begin
    valid <= rst ? 2'b00 : {valid[0], beat_valid};
    first <= {first[0], beat_first};
    none <= {none[0], beat_head.none};
    at[0] <= {beat_bank, beat_head.pass};
    at[1] <= at[0];
    for (int p = 0; p < PAIRS; ++p) begin
      for (int g = 0; g < G; ++g) pair[p][g] <= larger(counted[p][g], counted[E-1-p][g]);
    end
    for (int g = 0; g < G; ++g) largest[g] <= PAIRS > 1 ? larger(pair[0][g], pair[PAIRS-1][g]) : pair[0][g];
  end

  // Passes of a bank that have a value.
  logic [1:0][15:0] seen;
  always_ff @(posedge clk) begin
    if (valid[1]) begin
      if (first[1]) seen[at[1][4]] <= 16'd0;
      if (!none[1]) seen[at[1][4]][at[1][3:0]] <= 1'b1;
    end
    if (rst) seen <= '0;
  end
  wire fresh = first[1] || !seen[at[1][4]][at[1][3:0]];

  logic [G-1:0][15:0] found;
  wire [4:0] wanted = {bank, 4'(query >> QUERY)};
  for (genvar g = 0; g < G; ++g) begin : of_query
    logic [15:0] old;
    wire [15:0] now = fresh ? largest[g] : larger(largest[g], old);
    ram_lut #(
        .WIDTH(16),
        .DEPTH(32)
    ) running (
        .clk,
        .we(valid[1] && !none[1]),
        .waddr(at[1]),
        .wdata(now),
        .raddr(at[1]),
        .rdata(old)
    );
    ram_lut #(
        .WIDTH(16),
        .DEPTH(32)
    ) copy (
        .clk,
        .we(valid[1] && !none[1]),
        .waddr(at[1]),
        .wdata(now),
        .raddr(wanted),
        .rdata(found[g])
    );
  end

  always_ff @(posedge clk) begin
    value <= seen[bank][wanted[3:0]] ? found[query[QUERY-1:0]] : LOWEST;
  end

  if (E > 4) $error("the pairs of a beat are at most 2");

endmodule
