// The code that codes of entries above a bound by share are greater than: floor of total * share / 2^16, that is the
// smallest rank that reaches the share, whose code is one more.
//
// Streams: pieces of `total` from the lowest, then `start`; `done` rises 19 cycles later and falls with the next
// first piece. Nothing stalls it.
//
// Equals layout::ReachesShare, which compares a rank with this product.
module share_unit #(
    parameter int SUM = 24  // bits of a piece's sum over the lanes
) (
    input  logic           clk,
    input  logic           rst,
    input  logic           clear,
    input  logic           piece_valid,
    input  logic [SUM-1:0] piece,
    input  logic           start,
    input  logic [16:0]    share,        // at most 65536, stands until `done`
    output logic           done,
    output logic [31:0]    code_floor    // all ones: no code is above
);

  import select_types::*;

  localparam int WIDTH = TOTAL + SUM - PIECE;  // of the total over all lanes

  logic [WIDTH-1:0] total;
  logic [1:0] pieces;
  logic [WIDTH:0] product;
  logic [16:0] left;
  logic [4:0] step;
  logic busy, found;
  wire [WIDTH:0] sum = product + (left[0] ? (WIDTH + 1)'(total) : '0);

  always_ff @(posedge clk) begin
    if (clear) begin
      total <= '0;
      pieces <= 2'd0;
    end else if (piece_valid) begin
      total <= total + (WIDTH'(piece) << {pieces, 4'd0});
      pieces <= pieces + 2'd1;
    end
    if (start) begin
      product <= '0;
      left <= share;
      step <= 5'd0;
    end else if (busy) begin
      // The low bit falls away after each of the 16 lower bits.
      product <= step == 5'd16 ? sum : sum >> 1;
      left <= left >> 1;
      step <= step + 5'd1;
    end
    busy <= (start || (busy && step != 5'd16)) && !rst;
    found <= busy && step == 5'd16 && !rst;
    code_floor <= product[WIDTH:32] != '0 ? '1 : product[31:0];
    done <= !start && !clear && !rst && (done || found);
  end

  if (PIECE != 16) $error("pieces have 16 bits");

endmodule
