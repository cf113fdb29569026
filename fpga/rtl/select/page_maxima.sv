// The largest score of each query of a page over the entries that count, for jobs with `maxima`: what a bank of
// score_store holds of a long scan.
//
// Streams: beats of scores as score_store passes them, and `largest` of each as best_store makes it; a word's entry
// out for each page and pass, 4 cycles after its last beat. Nothing stalls it. A word has the maxima of 8 pages of
// the lane for one pass: page p is entry p mod 8 of the words from passes * (p / 8) on, a pass each.
//
// Equals the largest of layout::Scores over a page.
module page_maxima #(
    parameter int G = 4,
    parameter int BANK_WORDS = 4096,
    localparam int ADDRESS = $clog2(BANK_WORDS)
) (
    input  logic                    clk,
    input  logic                    rst,
    input  logic                    beat_valid,
    input  logic                    beat_bank,
    input  logic                    beat_first,
    /* verilator lint_off UNUSEDSIGNAL */  // the last beat of a job is score_store's
    input  card_types::score_head_t beat_head,
    /* verilator lint_on UNUSEDSIGNAL */
    input  logic [G-1:0][15:0]      largest,
    output logic                    valid,
    output logic                    bank,
    output logic [ADDRESS-1:0]      word,
    output logic [2:0]              entry,
    output logic                    counts,  // an entry of the page counts
    output logic [G-1:0][15:0]      y
);

  typedef struct packed {
    logic       valid;
    logic       bank;
    logic       first;       // of the job
    logic       page_first;  // of a page and pass
    logic       page_last;
    logic [3:0] pass;
    logic       counts;
  } tag_t;

  tag_t tag[3];
  always_ff @(posedge clk) begin
    tag[0] <= '{
        valid: beat_valid && beat_head.maxima && !beat_head.none && !rst,
        bank: beat_bank,
        first: beat_first,
        page_first: beat_head.at == 6'd0,
        page_last: beat_head.page_last,
        pass: beat_head.pass,
        counts: beat_head.counts != '0
    };
    for (int i = 1; i < 3; ++i) begin
      tag[i] <= tag[i-1];
      if (rst) tag[i].valid <= 1'b0;
    end
  end

  // The place of the page of tag[2]. A word has as many passes as the page before had, whose last one is `pass`.
  logic [ADDRESS-1:0] base;
  logic [2:0] place;
  logic [3:0] pass;
  wire page_begins = tag[1].valid && tag[1].page_first && tag[1].pass == 4'd0;
  always_ff @(posedge clk) begin
    if (tag[1].valid) pass <= tag[1].pass;
    if (page_begins) place <= place + 3'd1;
    if (page_begins && place == 3'd7) base <= base + ADDRESS'(pass) + ADDRESS'(1);
    if (tag[1].valid && tag[1].first) begin
      base <= '0;
      place <= 3'd0;
    end
  end

  always_ff @(posedge clk) begin
    valid <= tag[2].valid && tag[2].page_last && !rst;
    if (tag[2].valid) begin
      bank <= tag[2].bank;
      if (tag[2].page_last) word <= base + ADDRESS'(tag[2].pass);
      entry <= place;
      counts <= tag[2].counts || (counts && !tag[2].page_first);
      for (int g = 0; g < G; ++g) begin
        if (tag[2].page_first || $signed(largest[g]) > $signed(y[g])) y[g] <= largest[g];
      end
    end
  end

endmodule
