// A payload CYCLES cycles later, at least 1. Nothing stalls; no reset, so that it fits shift registers.
module delay #(
    parameter int WIDTH  = 1,
    parameter int CYCLES = 1
) (
    input  logic             clk,
    input  logic [WIDTH-1:0] in_data,
    output logic [WIDTH-1:0] out_data
);
  logic [WIDTH-1:0] held[CYCLES];

  always_ff @(posedge clk) begin
    held[0] <= in_data;
    for (int i = 1; i < CYCLES; ++i) held[i] <= held[i-1];
  end

  assign out_data = held[CYCLES-1];
endmodule
