// Decides when the card has failed, and why; until reset.
//
// A failure is an error response of host memory, a fault of a lane, or a job that takes more than `limit` cycles. A
// job begins when it is the oldest one under way: issued to the lanes, its results not yet written. A lane keeps its
// fault; of several that come together the lowest lane's counts, found among GROUP lanes and then among the groups.
// Latency: 3 cycles. Nothing stalls it. The first failure stays: kCardRegFailure of proto/layout/card.h.
module watchdog
  import mnemo_pkg::*;
  import card_types::*;
#(
    parameter int CHANNELS = 2
) (
    input  logic                  clk,
    input  logic                  rst,
    input  logic   [        31:0] limit,       // 0: none
    input  logic                  job_issued,
    input  logic                  job_ended,
    input  logic                  host_error,
    input  fault_t [CHANNELS-1:0] fault,
    output logic                  working,     // a job is under way
    output logic                  failed,
    output logic   [        31:0] failure
);
  logic [15:0] jobs;
  logic [31:0] cycles;
  logic late;
  localparam int GROUP = 4;
  localparam int GROUPS = (CHANNELS + GROUP - 1) / GROUP;
  fault_t [GROUPS-1:0] group_fault;
  logic [GROUPS-1:0][1:0] group_lane;
  fault_t lane_fault;
  logic [7:0] lane;

  always_ff @(posedge clk) begin
    for (int g = 0; g < GROUPS; g++) group_fault[g] <= FAULT_NONE;
    group_lane <= '0;
    for (int c = CHANNELS - 1; c >= 0; c--) begin
      if (fault[c] != FAULT_NONE) begin
        group_fault[c/GROUP] <= fault[c];
        group_lane[c/GROUP]  <= 2'(c % GROUP);
      end
    end
    lane_fault <= FAULT_NONE;
    lane       <= '0;
    for (int g = GROUPS - 1; g >= 0; g--) begin
      if (group_fault[g] != FAULT_NONE) begin
        lane_fault <= group_fault[g];
        lane       <= 8'(GROUP * g) + 8'(group_lane[g]);
      end
    end
    late <= cycles > limit && limit != '0;
    if (rst) begin
      jobs    <= '0;
      working <= 1'b0;
      cycles  <= '0;
      late    <= 1'b0;
      failed  <= 1'b0;
      failure <= '0;
    end else begin
      jobs <= jobs + 16'(job_issued) - 16'(job_ended);
      if (job_issued && !job_ended) working <= 1'b1;
      if (!job_issued && job_ended) working <= jobs != 16'd1;
      cycles <= (!working || job_ended) ? '0 : (cycles == '1) ? cycles : cycles + 1'b1;
      if (!failed) begin
        if (host_error) begin
          failed  <= 1'b1;
          failure <= 32'(CARD_FAILURE_HOST);
        end else if (lane_fault != FAULT_NONE) begin
          failed  <= 1'b1;
          failure <= {16'b0, lane, 5'b0, lane_fault};
        end else if (late) begin
          failed  <= 1'b1;
          failure <= 32'(CARD_FAILURE_WATCHDOG);
        end
      end
    end
  end
endmodule
