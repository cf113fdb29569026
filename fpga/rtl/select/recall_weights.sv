// The weights of all entries of a job, one by one, from its ids and ranks.
//
// Streams: beats of hits in, while `on`, up to the job's last; weights out, a cycle later, one a cycle. hit_ready is a register:
// a beat goes in the cycle after its last weight, when none follows. Nothing else stalls it. A weight is the rank >> 8, as
// in layout::ScoreSelect of kSelectWeightedSum; of the id the low bits are left: the entry of its page, and the page's low bits.
module recall_weights (
    input  logic                   clk,
    input  logic                   rst,
    input  logic                   on,
    input  logic                   hit_valid,
    output logic                   hit_ready,
    input  card_types::hit_beat_t  hit_beat,
    /* verilator lint_off UNUSEDSIGNAL */  // bits that a weight does not need
    input  logic            [15:0][31:0] hit_ids,
    input  logic            [15:0][31:0] hit_ranks,
    /* verilator lint_on UNUSEDSIGNAL */
    output logic                   weight_valid,
    input  logic                   weight_ready,
    output logic            [16:0] weight,
    output logic            [10:0] id,
    output logic                   last         // of the job
);
  logic [3:0] at;
  wire free = !weight_valid || weight_ready;
  wire ends = 5'(at) + 5'd1 == hit_beat.count;
  logic ended;  // the job has no more hits
  wire go = on && !ended && !hit_ready;
  wire next = free && go && hit_valid;

  always_ff @(posedge clk) begin
    if (rst) begin
      at <= '0;
      weight_valid <= 1'b0;
      ended <= 1'b0;
      hit_ready <= 1'b0;
    end else begin
      if (free) weight_valid <= next;
      if (next) at <= ends ? '0 : at + 4'd1;
      hit_ready <= next && ends;
      if (!on) ended <= 1'b0;
      else if (next && hit_beat.last && ends) ended <= 1'b1;
    end
    if (free) begin
      weight <= hit_ranks[at][24:8];
      id <= hit_ids[at][10:0];
      last <= hit_beat.last && ends;
    end
  end
endmodule
