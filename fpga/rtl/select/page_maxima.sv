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

  // The place of the page: `word` is still the last one of the page before.
  logic [ADDRESS-1:0] base, base_now;
  logic [2:0] place, place_now;
  always_comb begin
    base_now = base;
    place_now = place;
    if (tag[2].first) begin
      base_now = '0;
      place_now = 3'd0;
    end else if (tag[2].page_first && tag[2].pass == 4'd0) begin
      base_now = place == 3'd7 ? word + ADDRESS'(1) : base;
      place_now = place + 3'd1;
    end
  end

  always_ff @(posedge clk) begin
    valid <= tag[2].valid && tag[2].page_last && !rst;
    if (tag[2].valid) begin
      base <= base_now;
      place <= place_now;
      bank <= tag[2].bank;
      if (tag[2].page_last) word <= base_now + ADDRESS'(tag[2].pass);
      entry <= place_now;
      counts <= tag[2].counts || (counts && !tag[2].page_first);
      for (int g = 0; g < G; ++g) begin
        if (tag[2].page_first || $signed(largest[g]) > $signed(y[g])) y[g] <= largest[g];
      end
    end
  end

endmodule
