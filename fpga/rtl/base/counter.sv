// Cycles in which event_valid was 1, since reset, modulo 2^WIDTH. Latency: 2 cycles. The sum is made in halves,
// so that a carry chain never passes WIDTH / 2 bits; `value` is exact: both halves belong to the same cycle.
module counter #(
    parameter int WIDTH = 64
) (
    input  logic             clk,
    input  logic             rst,
    input  logic             event_valid,
    output logic [WIDTH-1:0] value
);
  localparam int LOW = WIDTH / 2;
  localparam int HIGH = WIDTH - LOW;

  logic [LOW-1:0] low, low_held;
  logic [HIGH-1:0] high;
  logic carry;

  always_ff @(posedge clk) begin
    if (rst) begin
      low      <= '0;
      low_held <= '0;
      high     <= '0;
      carry    <= 1'b0;
    end else begin
      {carry, low} <= {1'b0, low} + (LOW + 1)'(event_valid);
      low_held     <= low;
      high         <= high + HIGH'(carry);
    end
  end

  assign value = {high, low_held};
endmodule
