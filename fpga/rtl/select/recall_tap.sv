// One lane's part of the weighted sum: parts the lane's beats into scores, which go to the selector, and values, which
// go to recall_unit by a chain of all lanes.
//
// Streams: the lane's beats in; scores out, at once. Values wait for `send`, which lets one page go: an entry of one
// pass a cycle, from the lowest on, S / G entries a beat. No other lane's values are in the chain then. A
// beat of values without a page is dropped. The chain has a register a lane and does not stall; `top` goes along it,
// the largest octave of the lanes before and of this one, of its last job of scores.
module recall_tap
  import card_types::*;
#(
    parameter int G = 4,
    parameter int S = 16
) (
    input  logic                    clk,
    input  logic                    rst,
    input  logic                    lane_valid,
    output logic                    lane_ready,
    /* verilator lint_off UNUSEDSIGNAL */  // the scores' part
    input  score_head_t             lane_head,
    /* verilator lint_on UNUSEDSIGNAL */
    input  logic        [S*16-1:0]  lane_y,
    input  logic        [      4:0] lane_top,
    output logic                    score_valid,
    input  logic                    score_ready,
    input  logic                    send,
    input  logic                    in_valid,
    input  logic                    in_counts,
    input  logic        [ G*16-1:0] in_y,
    input  logic        [      4:0] in_top,
    output logic                    out_valid,
    output logic                    out_counts,
    output logic        [ G*16-1:0] out_y,
    output logic        [      4:0] out_top
);
  localparam int E = S / G;
  localparam int LOG = (E > 1) ? $clog2(E) : 1;

  logic sending, none, go;
  logic [LOG-1:0] entry;
  logic [E-1:0][G*16-1:0] y;
  logic [4:0] own;
  wire entry_last = 32'(entry) == E - 1;
  assign y = lane_y;
  assign go = sending && lane_valid && lane_head.value && !lane_head.none;
  assign score_valid = lane_valid && !lane_head.value;
  assign lane_ready = lane_head.value ? lane_head.none || (sending && entry_last) : score_ready;
  assign own = none ? '0 : lane_top;

  always_ff @(posedge clk) begin
    if (rst) begin
      sending <= 1'b0;
      none <= 1'b1;
      entry <= '0;
      out_valid <= 1'b0;
    end else begin
      if (send) sending <= 1'b1;
      else if (go && entry_last && lane_head.page_last) sending <= 1'b0;
      if (go) entry <= entry_last ? '0 : entry + 1'b1;
      if (score_valid && score_ready) none <= lane_head.none;
      out_valid <= in_valid || go;
    end
    out_counts <= go ? lane_head.counts[3'(entry)] : in_counts;
    out_y <= go ? y[entry] : in_y;
    out_top <= own > in_top ? own : in_top;
  end

`ifndef SYNTHESIS
  assert property (@(posedge clk) disable iff (rst) !(go && in_valid));
`endif
endmodule
