// The mantissa of a scale, shifted up by what the first shift of a score lacks to a multiple of 8: the product
// with it then needs a shift by 8, 16, 24 or 32 alone.
//
// No stream, nothing stalls. Latency: 1 cycle. factor = layout::ScaleMantissa(mantissa) << (7 - fine), where
// fine are the low bits of the shift.
module scale_factor (
    input  logic        clk,
    input  logic [ 2:0] mantissa,
    input  logic [ 2:0] fine,
    output logic [14:0] factor
);
  always_ff @(posedge clk) factor <= {7'd0, mnemo_pkg::SCALE_MANTISSA[mantissa]} << (3'd7 - fine);
endmodule
