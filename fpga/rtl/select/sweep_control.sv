// Finds the last rank of a job: asks all lanes for their candidates and largest scores, lets them sweep their
// banks once a digit, and picks each digit from the sums of their counters.
//
// Streams: jobs in; for each a head and then a decision out, which wait for nothing but their takers. A job begins
// when all lanes have filled its bank. Besides the sweeps it takes about 45 cycles a digit and 20 + queries more.
//
// Equals the choice of digits in layout::TopK, with digits of 4 bits; the k of layout::TopK is cut to the entries
// that count, so the last rank is known where all are taken too.
module sweep_control #(
    parameter int SUM = 24
) (
    input  logic                         clk,
    input  logic                         rst,
    input  logic [31:0]                  cycle,
    input  logic                         job_valid,
    output logic                         job_ready,
    input  card_types::select_job_t      job,
    input  logic [1:0]                   filled,      // by all lanes
    input  logic                         sweep_done,  // by all lanes
    input  logic                         sum_valid,
    input  logic [SUM-1:0]               sum,
    input  logic                         best_valid,
    input  logic [15:0]                  best,
    output select_types::sweep_command_t sweep_command,
    output select_types::read_command_t  read_command,
    output select_types::best_write_t    best_write,
    output logic                         head_valid,
    input  logic                         head_ready,
    output card_types::hit_head_t        head,
    output logic                         decision_valid,
    input  logic                         decision_ready,
    output select_types::decision_t      decision
);

  import card_types::*;
  import select_types::*;

  typedef enum logic [2:0] {
    IDLE,
    ASK,    // for candidates, pages and largest scores
    CHECK,
    SWEEP,
    COUNT,  // lanes sweep
    PICK,   // a digit
    NEXT,
    HAND    // head and decision wait for their takers
  } state_t;

  // Cycles until a lane's `done` of the last sweep has fallen for certain.
  localparam logic [2:0] SETTLE = 3'd6;

  state_t state;
  logic bank;
  select_job_t now;
  logic [1:0] was_filled;
  logic [1:0][31:0] scored;
  logic [31:0] head_scored;  // of the job, since its bank may be filled again while the head waits
  logic [6:0] asked, bests;
  logic [1:0] sums;
  logic [3:0] bins_asked, bin_value;
  logic [2:0] settle;
  logic [SUM-1:0] candidates, pages, count, need;
  logic [1:0] digit;
  logic [3:0] value;
  logic found, scores;
  logic [15:0] known;

  wire [6:0] wanted = now.plain ? 7'd0 : 7'(now.group_last) + 7'd1;
  wire begins = state == IDLE && job_valid && filled[bank];
  assign job_ready = begins;
  wire [SUM-1:0] need_left = need - sum;
  wire reaches = sum >= need;

  always_ff @(posedge clk) begin
    was_filled <= filled;
    for (int b = 0; b < 2; ++b) if (filled[b] && !was_filled[b]) scored[b] <= cycle;

    sweep_command.start <= 1'b0;
    read_command.take <= 1'b0;
    read_command.candidates <= 1'b0;
    read_command.pages <= 1'b0;
    read_command.bin <= 1'b0;
    read_command.best <= 1'b0;
    read_command.bank <= bank;
    best_write <= '{valid: best_valid, query: bests[5:0], value: best};
    if (best_valid) bests <= bests + 7'd1;
    if (head_ready) head_valid <= 1'b0;
    if (decision_ready) decision_valid <= 1'b0;

    unique case (state)
      IDLE: begin
        now <= job;
        asked <= 7'd0;
        bests <= 7'd0;
        sums <= 2'd0;
        if (begins) state <= ASK;
      end
      ASK: begin
        asked <= asked == 7'h7F ? asked : asked + 7'd1;
        read_command.take <= asked == 7'd0;
        read_command.candidates <= asked == 7'd0;
        read_command.pages <= asked == 7'd1;
        read_command.best <= asked < wanted;
        read_command.query <= asked[5:0];
        if (sum_valid) begin
          sums <= sums + 2'd1;
          pages <= sum;
          if (sums == 2'd0) candidates <= sum;
        end
        if (sums == 2'd2 && bests == wanted) state <= CHECK;
      end
      CHECK: begin
        head_scored <= scored[bank];
        count <= SUM'(now.k) < candidates ? SUM'(now.k) : candidates;
        need <= SUM'(now.k) < candidates ? SUM'(now.k) : candidates;
        digit <= now.plain ? 2'd3 : 2'd2;
        known <= now.plain ? 16'd0 : 16'h1000;
        scores <= 1'b1;
        state <= candidates == '0 ? HAND : SWEEP;
        head_valid <= candidates == '0;
        decision_valid <= candidates == '0;
      end
      SWEEP: begin
        sweep_command <= '{
            start: 1'b1,
            bank: bank,
            scores: scores,
            plain: now.plain,
            shape: now.shape,
            group_last: now.group_last,
            pass_last: now.pass_last,
            digit: digit,
            known: known
        };
        settle <= SETTLE;
        state <= COUNT;
      end
      COUNT: begin
        bins_asked <= 4'd15;
        bin_value <= 4'd15;
        found <= 1'b0;
        value <= 4'd0;
        if (settle != 3'd0) settle <= settle - 3'd1;
        else if (sweep_done) state <= PICK;
      end
      PICK: begin
        read_command.bin <= bins_asked != 4'd0;
        if (bins_asked != 4'd0) bins_asked <= bins_asked - 4'd1;
        if (sum_valid) begin
          bin_value <= bin_value - 4'd1;
          if (!found && reaches) begin
            found <= 1'b1;
            value <= bin_value;
          end else if (!found) begin
            need <= need_left;
          end
          if (bin_value == 4'd1) state <= NEXT;
        end
      end
      NEXT: begin
        known[{digit, 2'b00}+:DIGIT] <= value;
        digit <= digit - 2'd1;
        scores <= 1'b0;
        state <= digit == 2'd0 ? HAND : SWEEP;
        head_valid <= digit == 2'd0;
        decision_valid <= digit == 2'd0;
      end
      default:
      if (!head_valid && !decision_valid) begin
        bank <= !bank;
        state <= IDLE;
      end
    endcase
    if (rst) begin
      state <= IDLE;
      bank <= 1'b0;
      head_valid <= 1'b0;
      decision_valid <= 1'b0;
      read_command <= '0;
      best_write.valid <= 1'b0;
      was_filled <= 2'b00;
    end
  end

  wire [15:0] rank = known - (now.plain ? PLAIN_CODE_BIAS : MAX_CODE_BIAS);
  assign head = '{
          to_list: now.to_list,
          scored: head_scored,
          pages: 32'(pages),
          candidates: 32'(candidates),
          count: 32'(count),
          last_rank: candidates == '0 ? 32'd0 : {{16{rank[15]}}, rank}
      };
  assign decision = '{job: now, bank: bank, code: known, need: 24'(need), count: 24'(count)};

endmodule
