// The arithmetic units of a lane side by side, for their test.
module units_bench (
    input  logic                        clk,
    input  logic                        rst,
    // scale_factor and scorer
    input  logic        [ 7:0]          moves,
    input  logic        [ 2:0]          mantissa,
    input  logic        [ 2:0]          fine1,
    input  logic signed [24:0]          dot2,
    input  logic        [ 1:0]          coarse1,
    input  logic        [15:0]          multiplier,
    input  logic        [ 4:0]          shift2,
    input  logic signed [15:0]          base,
    output logic signed [16:0]          limitless,
    output logic signed [15:0]          y,
    output logic signed [15:0]          y_of_two,  // of the scorer with two products
    // table_builder and plane_unit
    input  logic                        clear,
    input  logic                        step,
    input  logic                        minus,
    input  logic        [15:0][ 7:0]    codes,
    input  logic                        we,
    input  logic                        write_bank,
    input  logic        [ 3:0]          write_at,
    input  logic                        valid,
    input  logic                        bank,
    input  logic        [63:0]          bits,
    output logic signed [13:0]          sum,
    output logic signed [13:0]          sum_apart,  // of the unit with a memory a table
    // base_dot
    input  logic                        dot_valid,
    input  logic                        dot_first,
    input  logic                        dot_last,
    input  logic        [1:0][7:0][7:0] dot_codes,
    input  logic        [7:0][7:0]      dot_base,
    output logic                        dot_done,
    output logic        [1:0][23:0]     dots
);
  logic [15:0][9:0] sums;
  logic [14:0] factor;
  scale_factor scale (.clk, .mantissa, .fine(fine1), .factor);
  scorer one (.clk, .moves, .dot2, .factor, .coarse1, .multiplier, .shift2, .base, .sum(limitless), .y);
  logic signed [16:0] limitless_of_two;
  scorer #(
      .PRODUCTS(2)
  ) two (.clk, .moves, .dot2, .factor, .coarse1, .multiplier, .shift2, .base, .sum(limitless_of_two), .y(y_of_two));
  logic unused;
  assign unused = &{1'b0, limitless_of_two, 1'b0};
  table_builder builder (.clk, .clear, .step, .minus, .codes, .sums);
  plane_unit #(
      .MERGED(1)
  ) planes (.clk, .we, .write_bank, .write_at, .write_sums(sums), .valid, .bank, .bits, .sums(sum));
  plane_unit #(
      .MERGED(0)
  ) apart (.clk, .we, .write_bank, .write_at, .write_sums(sums), .valid, .bank, .bits, .sums(sum_apart));
  base_dot #(
      .G(2)
  ) bases (
      .clk, .rst, .valid(dot_valid), .first(dot_first), .last(dot_last), .codes(dot_codes), .base(dot_base),
      .done(dot_done), .dots
  );
endmodule
