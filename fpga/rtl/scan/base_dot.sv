// The dot product of a page's base with G queries, 8 products a query and cycle.
//
// No stream: nothing stalls. `first` clears, `last` ends the sum of codes[i] * base[i] over the cycles with
// valid. Latency: `done` and `dots` 3 cycles after the cycle with `last`; the next sum may follow at once,
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
  logic signed [18:0] eight[G];
  logic signed [23:0] sum[G];
  logic valid1, valid2, first1, first2, last1, last2;

  always_ff @(posedge clk) begin
    valid1 <= valid && !rst;
    valid2 <= valid1 && !rst;
    done   <= valid2 && last2 && !rst;
    first1 <= first;
    first2 <= first1;
    last1  <= last;
    last2  <= last1;
  end

  for (genvar g = 0; g < G; ++g) begin : g_query
    logic signed [17:0] half[2];
    for (genvar h = 0; h < 2; ++h) begin : g_half
      assign half[h] = (18'(product[g][4*h]) + 18'(product[g][4*h+1])) +
          (18'(product[g][4*h+2]) + 18'(product[g][4*h+3]));
    end
    always_ff @(posedge clk) begin
      if (valid) for (int i = 0; i < 8; ++i) product[g][i] <= $signed(codes[g][i]) * $signed(base[i]);
      if (valid1) eight[g] <= 19'(half[0]) + 19'(half[1]);
      if (valid2) sum[g] <= (first2 ? 24'sd0 : sum[g]) + 24'(eight[g]);
    end
    assign dots[g] = sum[g];
  end
endmodule
