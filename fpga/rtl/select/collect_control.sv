// Lets all lanes and the hit collector take the hits of a job whose last rank is known, one job at a time.
//
// Streams: decisions in; one waits until the job before it has ended, and with lists until one of the two slots of
// lists is free. A slot is taken by a job that makes lists and is free when the listed job after it has ended, so at most two
// jobs that make lists may be ahead of their listed jobs. 8 cycles a job beside the hits.
module collect_control (
    input  logic                           clk,
    input  logic                           rst,
    input  logic                           decision_valid,
    output logic                           decision_ready,
    input  select_types::decision_t        decision,
    input  logic                           exhausted,
    input  logic                           done,        // of the hit collector
    output logic                           start,
    output logic                           clear,
    output select_types::decision_t        now,
    output logic                           fill_slot,
    output select_types::collect_command_t command
);

  import select_types::*;

  typedef enum logic [1:0] {
    IDLE,
    START,
    RUN,
    CLEAR
  } state_t;

  localparam logic [2:0] CLEAR_CYCLES = 3'd5;

  state_t state;
  logic use_slot;
  logic [1:0] used;  // slots
  logic [2:0] left;
  assign decision_ready = state == IDLE && decision_valid && !(decision.job.to_list && used == 2'd2);

  always_ff @(posedge clk) begin
    unique case (state)
      IDLE: begin
        now <= decision;
        if (decision_ready) state <= START;
      end
      START: begin
        if (now.job.to_list) used <= used + 2'd1;
        state <= RUN;
      end
      RUN: begin
        left <= CLEAR_CYCLES;
        if (done) state <= CLEAR;
      end
      default: begin
        left <= left - 3'd1;
        if (left == 3'd0) begin
          state <= IDLE;
          if (now.job.to_list) fill_slot <= !fill_slot;
          if (now.job.listed) begin
            use_slot <= !use_slot;
            used <= used - 2'd1;
          end
        end
      end
    endcase
    if (rst) begin
      state <= IDLE;
      fill_slot <= 1'b0;
      use_slot <= 1'b0;
      used <= 2'd0;
    end
  end

  assign start = state == START;
  assign clear = state == CLEAR && left != 3'd0;
  always_comb begin
    command = '{
        start: start,
        clear: clear,
        exhausted: exhausted,
        bank: now.bank,
        shape: now.job.shape,
        sparse: now.job.kept,
        listed: now.job.listed,
        list_slot: use_slot,
        first_page: now.job.first_page,
        wide: now.job.exp2 || now.job.relu,
        code: now.code
    };
  end

endmodule
