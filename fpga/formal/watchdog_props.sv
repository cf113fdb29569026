// watchdog: a failure stays until reset, with its first cause; a job that takes longer than the limit fails the
// card 3 cycles later at the latest, and no other does. A lane's fault fails it 3 cycles later, by the lowest lane's
// number. The environment ends no job that was not issued.
module watchdog_props
  import mnemo_pkg::*;
  import card_types::*;
#(
    parameter int CHANNELS = 2
) (
    input logic                  clk,
    input logic                  rst,
    input logic   [        31:0] limit,
    input logic                  job_issued,
    input logic                  job_ended,
    input logic                  host_error,
    input fault_t [CHANNELS-1:0] fault,
    input logic                  working,
    input logic                  failed,
    input logic   [        31:0] failure,
    // Registers of the module, for the invariants of the induction.
    input logic   [        15:0] jobs,
    input logic   [        31:0] cycles,
    input logic                  late
);
  logic past = 1'b0;
  always_ff @(posedge clk) past <= 1'b1;
  always_comb if (!past) assume (rst);

  // Fewer jobs than the counter holds are under way, and the limit stays.
  logic [15:0] under_way;
  always_ff @(posedge clk) under_way <= rst ? '0 : under_way + 16'(job_issued) - 16'(job_ended);
  always_comb begin
    if (under_way == '0) assume (!job_ended);
    if (under_way == '1) assume (!job_issued);
  end
  logic [31:0] limit_q;
  always_ff @(posedge clk) limit_q <= limit;
  always_comb if (past && !rst) assume (limit == limit_q && limit < 32'hFFFF_FFF0);

  // Cycles that the oldest job is under way.
  logic [31:0] age;
  always_ff @(posedge clk) begin
    if (rst || under_way == '0 || job_ended) age <= '0;
    else if (!(&age)) age <= age + 1'b1;
  end
  logic was_late, late_q, error_q, failed_q;
  logic [31:0] failure_q;
  logic began = 1'b0;

  // The failure of the lowest lane with a fault, 0 without one: now, and in the cycles before.
  logic [31:0] named;
  logic [2:0][31:0] named_before;
  logic [1:0] warm = '0;  // cycles since the first one
  always_comb begin
    named = '0;
    for (int c = CHANNELS - 1; c >= 0; c--) if (fault[c] != FAULT_NONE) named = {16'b0, 8'(c), 8'(fault[c])};
  end
  always_ff @(posedge clk) begin
    began     <= past && !rst;
    was_late  <= !rst && limit != '0 && age > limit;
    late_q    <= late;
    error_q   <= host_error;
    failed_q  <= failed;
    failure_q <= failure;
    named_before <= {named_before[1:0], named};
    if (warm != '1) warm <= warm + 2'd1;
  end

  always_comb begin
    if (past) begin
      assert (jobs == under_way);
      assert (working == (under_way != '0));
      assert (cycles == age);
      assert (failed || failure == '0);
      if (began) begin
        assert (late == was_late);
        if (failed_q) assert (failed && failure == failure_q);
        else if (warm == '1) begin
          assert (failed == (error_q || named_before[2] != '0 || late_q));
          if (error_q) assert (failure == 32'(CARD_FAILURE_HOST));
          else if (named_before[2] != '0) assert (failure == named_before[2]);
          else if (late_q) assert (failure == 32'(CARD_FAILURE_WATCHDOG));
        end
      end
      // The bound.
      if (began && !rst && !failed && limit != '0) assert (age <= limit + 32'd2);
    end
  end
  always_comb cover (past && failed && failure == 32'(CARD_FAILURE_WATCHDOG));
endmodule

bind watchdog watchdog_props #(.CHANNELS(CHANNELS)) props (.*);
