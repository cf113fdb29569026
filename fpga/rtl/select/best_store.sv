// The largest score of each query of a lane, over the entries that count, in both banks.
//
// Streams: beats of scores as score_store passes them, one a cycle; nothing stalls them. A beat is in after 4
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
    output logic [G-1:0][15:0]      largest,     // of a beat, 3 cycles after it
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

  // Entries that do not count become the lowest; then entries in pairs, then all of them. A pass begins anew with the
  // first beat of the job's first page.
  typedef struct packed {
    logic       valid;
    logic       fresh;
    logic       bank;
    logic [3:0] pass;
  } tag_t;
  tag_t tag[3];
  logic [E-1:0][G-1:0][15:0] counted;
  logic [PAIRS-1:0][G-1:0][15:0] pair;
  logic [1:0] held;  // banks with a value
  logic first_page;
  wire page_begins = beat_head.pass == 4'd0 && beat_head.at == 6'd0;
  wire of_first = beat_first || (first_page && !page_begins);
  always_ff @(posedge clk) begin
    if (beat_valid) begin
      first_page <= of_first;
      if (beat_first) held[beat_bank] <= !beat_head.none;
    end
    tag[0] <= '{
        valid: beat_valid && !beat_head.none && !rst,
        fresh: of_first && beat_head.at == 6'd0,
        bank: beat_bank,
        pass: beat_head.pass
    };
    for (int i = 1; i < 3; ++i) begin
      tag[i] <= tag[i-1];
      if (rst) tag[i].valid <= 1'b0;
    end
    for (int e = 0; e < E; ++e) begin
      for (int g = 0; g < G; ++g) begin
        counted[e][g] <= beat_y[(e*G+g)*16+:16];
        if (!beat_head.counts[e]) counted[e][g] <= LOWEST;
      end
    end
    for (int p = 0; p < PAIRS; ++p) begin
      for (int g = 0; g < G; ++g) pair[p][g] <= larger(counted[p][g], counted[E-1-p][g]);
    end
    for (int g = 0; g < G; ++g) largest[g] <= PAIRS > 1 ? larger(pair[0][g], pair[PAIRS-1][g]) : pair[0][g];
    if (rst) held <= 2'b00;
  end

  // All queries of a pass in a word. The old one is read a cycle ahead, or is the one that is being written.
  logic [G-1:0][15:0] stored, old, now, found;
  logic same;
  wire [4:0] at = {tag[2].bank, tag[2].pass};
  always_ff @(posedge clk) begin
    same <= tag[1].valid && {tag[1].bank, tag[1].pass} == {tag[0].bank, tag[0].pass};
    old <= same ? now : stored;
  end
  always_comb begin
    for (int g = 0; g < G; ++g) now[g] = tag[2].fresh ? largest[g] : larger(largest[g], old[g]);
  end
  ram_lut #(
      .WIDTH(G * 16),
      .DEPTH(32)
  ) running (
      .clk,
      .we(tag[2].valid),
      .waddr(at),
      .wdata(now),
      .raddr({tag[1].bank, tag[1].pass}),
      .rdata(stored)
  );
  ram_lut #(
      .WIDTH(G * 16),
      .DEPTH(32)
  ) copy (
      .clk,
      .we(tag[2].valid),
      .waddr(at),
      .wdata(now),
      .raddr({bank, 4'(query >> QUERY)}),
      .rdata(found)
  );

  always_ff @(posedge clk) value <= held[bank] ? found[query[QUERY-1:0]] : LOWEST;

  if (E > 4) $error("the pairs of a beat are at most 2");

endmodule
