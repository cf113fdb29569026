// Lets all lanes and the hit collector take the hits of the jobs whose last rank is known. The collector has one job at a
// time. The lanes begin the next one when their hits of this one are all in their FIFOs, so that the next hits
// follow the end of these through the merge tree. They wait for the collector instead when more than 32 entries of the last
// rank are left out, which it drops, and beside jobs that make or use lists.
//
// Streams: decisions in; one waits until the job before it has ended, or until the lanes may begin it, and with lists until
// one of the two slots of lists is free. A slot is taken by a job that makes lists and is free when the listed job after it
// has ended, so at most two jobs that make lists may be ahead of their listed jobs. Between the hits of two jobs pass 9
// cycles, 30 more when the lanes wait.
module collect_control (
    input  logic                           clk,
    input  logic                           rst,
    input  logic                           decision_valid,
    output logic                           decision_ready,
    input  select_types::decision_t        decision,
    input  logic                           exhausted,
    input  logic                           done,        // of the hit collector
    input  logic                           pages_end,   // the end of the lanes' pages has come
    input  logic                           lanes_ended,  // all hits are in the FIFOs, up to 3 cycles late
    output logic                           start,       // of the hit collector
    output logic                           clear,
    output select_types::decision_t        now,
    output logic                           fill_slot,
    output select_types::collect_command_t command
);

  import select_types::*;

  typedef enum logic [2:0] {
    IDLE,
    START,
    RUN,
    CLEAR,
    CLOSE
  } state_t;

  localparam logic [1:0] CLEAR_CYCLES = 2'd2;
  localparam logic [1:0] SETTLE = 2'd3;  // until `lanes_ended` has fallen for certain

  state_t state;
  decision_t lanes;  // the lanes' job
  logic ahead;  // it is behind the collector's
  logic lanes_start;
  logic all_taken, no_pages;  // the collector has all hits, the merge tree is empty
  logic use_slot;
  logic [1:0] used;  // slots
  logic [1:0] left, settle;

  wire lists = now.job.to_list || now.job.listed || decision.job.to_list || decision.job.listed;
  wire goes_ahead = state == RUN && !ahead && !all_taken && lanes_ended && settle == 2'd0 && decision_valid &&
      !now.tied && decision.count != 24'd0 && !lists;
  wire begins = state == IDLE && decision_valid && !(decision.job.to_list && used == 2'd2);
  assign decision_ready = begins || goes_ahead;
  wire taken = done || all_taken;

  always_ff @(posedge clk) begin
    lanes_start <= begins || goes_ahead;
    settle <= begins || goes_ahead ? SETTLE : settle == 2'd0 ? 2'd0 : settle - 2'd1;
    if (begins || goes_ahead) lanes <= decision;
    if (begins) now <= decision;
    all_taken <= state == RUN && taken;
    no_pages <= state == RUN && (pages_end || no_pages);
    unique case (state)
      IDLE: if (begins) state <= START;
      START: begin
        if (now.job.to_list) used <= used + 2'd1;
        state <= RUN;
      end
      RUN: begin
        left <= CLEAR_CYCLES;
        if (goes_ahead) ahead <= 1'b1;
        if (taken && ahead) begin
          if (no_pages) begin
            ahead <= 1'b0;
            now <= lanes;
            state <= START;
          end
        end else if (taken && !goes_ahead) begin
          state <= no_pages ? CLOSE : CLEAR;
        end
      end
      CLEAR: begin
        left <= left - 2'd1;
        if (left == 2'd1) state <= CLOSE;
      end
      default: begin
        state <= IDLE;
        if (now.job.to_list) fill_slot <= !fill_slot;
        if (now.job.listed) begin
          use_slot <= !use_slot;
          used <= used - 2'd1;
        end
      end
    endcase
    if (rst) begin
      state <= IDLE;
      ahead <= 1'b0;
      lanes_start <= 1'b0;
      settle <= 2'd0;
      fill_slot <= 1'b0;
      use_slot <= 1'b0;
      used <= 2'd0;
    end
  end

  assign start = state == START;
  assign clear = state == CLEAR;
  always_comb begin
    command = '{
        start: lanes_start,
        clear: clear,
        exhausted: exhausted && now.tied,
        bank: lanes.bank,
        shape: lanes.job.shape,
        sparse: lanes.job.kept,
        listed: lanes.job.listed,
        list_slot: use_slot,
        first_page: lanes.job.first_page,
        wide: lanes.job.exp2 || lanes.job.relu,
        code: lanes.code
    };
  end

`ifndef SYNTHESIS
  assert property (@(posedge clk) disable iff (rst) lanes_start && state != START |-> ahead);
`endif

endmodule
