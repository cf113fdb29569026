// Finds the last rank of a job: asks all lanes for their candidates and largest scores, lets them sweep their
// banks once a digit, and picks each digit from the sums of their counters.
//
// Streams: jobs in; for each a head and then a decision out, which wait for nothing but their takers. A job begins
// when all lanes have filled its bank. Besides the sweeps it takes 25 to 40 cycles a digit and 20 + queries more: the
// next sweep begins when a digit is found, while the counters of the digit's lower values are still read.
// Codes of group max have 3 digits, of plain max 4, of the sum of exp2 7, from 16 queries on and of ReLU 8. With a
// bound further sweeps come first, one a digit of 16 or 32 bits, that count the entries that reach it.
//
// A long scan has two jobs. The first one chooses among pages; its largest scores stay in the lanes' sweep units, and
// its candidates here, for the second one, whose own entries need not have the best score of each query. The lanes have
// made the ranks of the second one. With a bound the first one gives the largest scores alone, and the second one has
// all entries of the range. With a first stage on signs two more jobs follow: one that gives the largest scores
// and the candidates of all planes alone, and one with their ranks.
//
// Equals the choice of digits in layout::TopK, with digits of 4 bits; the k of layout::TopK is cut to the entries
// that count, so the last rank is known where all are taken too; and the threshold of layout::ScoreSelect.
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

  typedef enum logic [3:0] {
    IDLE,
    ASK,    // for candidates, pages and largest scores
    CHECK,
    SWEEP,
    COUNT,  // lanes sweep
    TOTAL_OF_ALL,  // of the ranks
    SHARE,  // of it becomes a bound
    PICK,   // a digit, or count those above the bound's
    PASSED,  // the entries that reach the bound are counted
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
  logic [31:0] scored_now;  // the bank may be filled anew while the head waits
  logic [6:0] asked, bests;
  logic [1:0] sums;
  logic [3:0] bins_asked, bin_value;  // bin_value: of the next answer, 0: none is due
  logic [2:0] settle;
  logic [SUM-1:0] candidates, pages, entries, count, need;  // entries: that may be chosen
  logic [2:0] digit;
  logic [3:0] value;
  logic found, scores;
  logic [SUM-1:0] need_before;  // of the last digit, less the entries that have it
  logic tied;
  logic [31:0] known;
  // Entries with codes above code_floor reach the bound.
  logic bounding, floor_wanted, share_clear, share_start, share_done;
  logic [1:0] pieces_asked, pieces;
  logic [31:0] code_floor, share_floor;
  logic [SUM-1:0] passed;
  logic [3:0] floor_digit;
  // Figures that follow from registers above a cycle or more later: their states come later still.
  logic [31:0] bias, bound_code, bound_floor;
  logic [6:0] wanted;
  logic k_below_entries, k_below_passed, no_candidates, none_passed;
  logic none, cut;  // of the head: no entry reaches the bound, not all are taken
  wire wide = now.exp2 || now.relu;
  wire [2:0] first_digit = now.relu || (now.exp2 && now.group_last >= 6'd15) ? 3'd7 : now.exp2 ? 3'd6 :
      now.plain ? 3'd3 : 3'd2;
  wire [31:0] first_known = wide || now.plain ? 32'd0 : 32'h1000;

  share_unit #(
      .SUM(SUM)
  ) shares (
      .clk,
      .rst,
      .clear(share_clear),
      .piece_valid(state == TOTAL_OF_ALL && sum_valid),
      .piece(sum),
      .start(share_start),
      .share(now.bound[16:0]),
      .done(share_done),
      .code_floor(share_floor)
  );

  wire begins = state == IDLE && job_valid && filled[bank] && bins_asked == 4'd0;
  assign job_ready = begins;
  sweep_command_t command;
  assign command = '{
          start: 1'b0,
          tells: 1'b0,
          bank: bank,
          scores: scores,
          plain: now.plain,
          exp2: now.exp2,
          wide: wide,
          shape: now.shape,
          of_page: now.of_page,
          sparse: now.kept,
          group_last: now.group_last,
          pass_last: now.pass_last,
          digit: digit,
          known: bounding ? code_floor : known
      };
  wire [SUM-1:0] need_left = need - sum;
  wire reaches = sum >= need;

  always_ff @(posedge clk) begin
    bias <= code_bias(now.plain, now.exp2, now.relu);
    bound_code <= now.bound + bias;
    bound_floor <= bound_code == 32'd0 ? 32'd0 : bound_code - 32'd1;
    floor_digit <= code_floor[{digit, 2'b00}+:DIGIT];
    k_below_entries <= SUM'(now.k) < entries;
    k_below_passed <= SUM'(now.k) < passed;
    no_candidates <= candidates == '0;
    none_passed <= passed == '0;
    tied <= need_before != '0 && need_before[SUM-1:5] != '1;
  end

  always_ff @(posedge clk) begin
    was_filled <= filled;
    for (int b = 0; b < 2; ++b) if (filled[b] && !was_filled[b]) scored[b] <= cycle;

    sweep_command.start <= 1'b0;
    sweep_command.tells <= 1'b0;
    read_command.take <= 1'b0;
    read_command.candidates <= 1'b0;
    read_command.pages <= 1'b0;
    read_command.bin <= 1'b0;
    read_command.best <= 1'b0;
    read_command.total <= 1'b0;
    share_clear <= 1'b0;
    share_start <= 1'b0;
    read_command.bank <= bank;
    best_write <= '{valid: best_valid, query: bests[5:0], value: best};
    if (best_valid) bests <= bests + 7'd1;
    // Counters are read down to the last one, since that clears them.
    read_command.bin <= bins_asked != 4'd0;
    if (bins_asked != 4'd0) bins_asked <= bins_asked - 4'd1;
    if (sum_valid && bin_value != 4'd0) bin_value <= bin_value - 4'd1;
    if (head_ready) head_valid <= 1'b0;
    if (decision_ready) decision_valid <= 1'b0;

    unique case (state)
      IDLE: begin
        now <= job;
        wanted <= job.plain || job.relu || job.kept ? 7'd0 : 7'(job.group_last) + 7'd1;
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
        if (sum_valid && bin_value == 4'd0) begin
          sums <= sums + 2'd1;
          pages <= sum;
          if (sums == 2'd0 && !now.kept) candidates <= sum;
          if (sums == 2'd0 || now.shape == SHAPE_MAXIMA) entries <= sum;
        end
        if (sums == 2'd2 && bests == wanted) state <= CHECK;
      end
      CHECK: begin
        scored_now <= scored[bank];
        count <= now.measured ? '0 : k_below_entries ? SUM'(now.k) : entries;
        need <= k_below_entries ? SUM'(now.k) : entries;
        digit <= now.bounded ? {wide, 2'b11} : first_digit;
        known <= first_known;
        code_floor <= bound_floor;
        bounding <= now.bounded;
        floor_wanted <= now.bounded && now.exp2;
        share_clear <= 1'b1;
        passed <= '0;
        scores <= !now.relu && !now.kept;
        sweep_command <= command;
        sweep_command.tells <= now.measured;
        none <= no_candidates;
        cut <= 1'b0;
        state <= no_candidates || now.measured ? HAND : SWEEP;
        head_valid <= no_candidates || now.measured;
        decision_valid <= no_candidates || now.measured;
      end
      SWEEP: begin
        sweep_command <= command;
        sweep_command.start <= 1'b1;
        settle <= SETTLE;
        state <= COUNT;
      end
      COUNT: begin
        found <= 1'b0;
        value <= 4'd0;
        pieces_asked <= 2'd0;
        pieces <= 2'd0;
        if (settle != 3'd0) settle <= settle - 3'd1;
        else if (sweep_done) begin
          state <= floor_wanted ? TOTAL_OF_ALL : PICK;
          bins_asked <= floor_wanted ? 4'd0 : 4'd15;
          bin_value <= floor_wanted ? 4'd0 : 4'd15;
        end
      end
      TOTAL_OF_ALL: begin
        read_command.total <= pieces_asked != 2'd3;
        read_command.piece <= pieces_asked;
        if (pieces_asked != 2'd3) pieces_asked <= pieces_asked + 2'd1;
        if (sum_valid) begin
          pieces <= pieces + 2'd1;
          if (pieces == 2'd2) begin
            share_start <= 1'b1;
            state <= SHARE;
          end
        end
      end
      SHARE: begin
        floor_wanted <= 1'b0;
        code_floor <= share_floor;
        if (share_done) begin
          state <= PICK;
          bins_asked <= 4'd15;
          bin_value <= 4'd15;
        end
      end
      PICK: begin
        if (sum_valid) begin
          if (!found) need_before <= need_left;
          if (bounding) begin
            if (bin_value > floor_digit) passed <= passed + sum;
          end else if (!found && reaches) begin
            found <= 1'b1;
            value <= bin_value;
          end else if (!found) begin
            need <= need_left;
          end
          if (bin_value == 4'd1) state <= NEXT;
        end
        // The next sweep's codes come when all counters are read.
        if (found && !bins_asked[3]) state <= NEXT;
      end
      NEXT: begin
        if (!bounding) known[{digit, 2'b00}+:DIGIT] <= value;
        digit <= digit - 3'd1;
        scores <= 1'b0;
        if (digit != 3'd0) state <= SWEEP;
        else state <= bounding ? PASSED : HAND;
        head_valid <= digit == 3'd0 && !bounding;
        decision_valid <= digit == 3'd0 && !bounding;
      end
      PASSED: begin
        bounding <= 1'b0;
        digit <= first_digit;
        candidates <= passed;
        count <= k_below_passed ? SUM'(now.k) : passed;
        need <= k_below_passed ? SUM'(now.k) : passed;
        none <= none_passed;
        cut <= k_below_passed;
        state <= none_passed ? HAND : SWEEP;
        head_valid <= none_passed;
        decision_valid <= none_passed;
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
      bins_asked <= 4'd0;
      bin_value <= 4'd0;
      best_write.valid <= 1'b0;
      was_filled <= 2'b00;
    end
  end

  wire [31:0] rank = known - bias;
  assign head = '{
          to_list: now.to_list,
          measured: now.measured,
          scored: scored_now,
          pages: 32'(pages),
          candidates: 32'(candidates),
          cut: cut,
          count: 32'(count),
          last_rank: none ? 32'd0 : rank,
          weigh: now.weigh
      };
  assign decision = '{job: now, bank: bank, code: known, need: 24'(need), count: 24'(count), tied: tied};

`ifndef SYNTHESIS
  // A sweep takes longer than the answers that are still due when it begins.
  assert property (@(posedge clk) disable iff (rst) state == COUNT && settle == 3'd0 && sweep_done |->
      bin_value == 4'd0);
`endif

endmodule
