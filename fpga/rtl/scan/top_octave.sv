// The largest octave of the pages that a job scores, of tokens and bases: WeightedSumHeader's top_octave in one lane.
//
// No stream. A page counts with its last step, whose header is at hand; the figure stays until the next job's
// first page. Only jobs of codes have a meaning here, and none does where the lane has no page. Octaves are below 32
// (proto/layout/record.h). Latency: 2 cycles. Nothing stalls it.
module top_octave
  import scan_types::*;
(
    input  logic          clk,
    input  logic          rst,
    /* verilator lint_off UNUSEDSIGNAL */  // a page's octaves alone
    input  header_t       header,
    /* verilator lint_on UNUSEDSIGNAL */
    input  logic          page_freed,  // the page of `header`
    input  logic          job_done,    // before the next job's first page is freed
    output logic    [4:0] top
);
  logic fresh, freed;
  logic [4:0] tokens, base, page;
  assign tokens = header.top_octave[4:0];
  assign base = header.base_scale[7:3];

  always_ff @(posedge clk) begin
    freed <= page_freed && !rst;
    page  <= tokens > base ? tokens : base;
    if (rst || job_done) fresh <= 1'b1;
    else if (freed) fresh <= 1'b0;
    if (freed && (fresh || page > top)) top <= page;
  end
endmodule
