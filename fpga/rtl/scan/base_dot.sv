// The dot product of a page's base with G queries, 8 products a query and cycle.
//
// No stream: nothing stalls. `first` clears, `last` ends the sum of codes[i] * base[i] over the cycles with
// valid. Latency: `done` and `dots` 4 cycles after the cycle with `last`; the next sum may follow at once,
// so dots hold for the cycle with `done` alone.
module base_dot #(
    parameter int G = 4
) (
    input  logic                           clk,
    input  logic                           rst,
    input  logic                           valid,
    input  logic                           first,
    input  logic                           last,
    input  logic [G-1:0][7:0]       [ 7:0] codes,
    input  logic        [7:0]       [ 7:0] base,
    output logic                           done,
    output logic        [G-1:0][23:0]      dots
);
  logic signed [15:0] product[G][8];
  logic signed [23:0] sum[G];
  logic valid1, valid2, valid3, first1, first2, first3, last1, last2, last3;

  always_ff @(posedge clk) begin
    valid1 <= valid && !rst;
    valid2 <= valid1 && !rst;
    valid3 <= valid2 && !rst;
    done   <= valid3 && last3 && !rst;
    {first1, first2, first3} <= {first, first1, first2};
    {last1, last2, last3} <= {last, last1, last2};
  end

  for (genvar g = 0; g < G; ++g) begin : g_query
    // As in plane_unit: a sum that goes on without a register is made not negative.
    logic signed [16:0] pair[4];
    logic [16:0] above[4];
    logic [17:0] quad_above[2];
    logic signed [17:0] quad[2];
    logic signed [18:0] eight;
    for (genvar i = 0; i < 4; ++i) begin : g_pair
      assign pair[i]  = 17'(product[g][2*i]) + 17'(product[g][2*i+1]);
      assign above[i] = {~pair[i][16], pair[i][15:0]};
    end
    for (genvar i = 0; i < 2; ++i) begin : g_quad
      assign quad_above[i] = 18'(above[2*i]) + 18'(above[2*i+1]);
    end
    always_ff @(posedge clk) begin
      if (valid) for (int i = 0; i < 8; ++i) product[g][i] <= $signed(codes[g][i]) * $signed(base[i]);
      if (valid1) for (int i = 0; i < 2; ++i) quad[i] <= {~quad_above[i][17], quad_above[i][16:0]};
      if (valid2) eight <= 19'(quad[0]) + 19'(quad[1]);
      if (valid3) sum[g] <= (first3 ? 24'sd0 : sum[g]) + 24'(eight);
    end
    assign dots[g] = sum[g];
  end
endmodule
