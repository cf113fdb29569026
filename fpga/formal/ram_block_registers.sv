// The behaviour of base/ram_block.sv in registers: properties may look at all words, which they may not in a
// memory that is marked for block RAM.
module ram_block #(
    parameter int WIDTH = 8,
    parameter int DEPTH = 512
) (
    input  logic                     clk,
    input  logic                     we,
    input  logic [$clog2(DEPTH)-1:0] waddr,
    input  logic [        WIDTH-1:0] wdata,
    input  logic                     re,
    input  logic [$clog2(DEPTH)-1:0] raddr,
    output logic [        WIDTH-1:0] rdata
);
  logic [WIDTH-1:0] words[DEPTH];

  always_ff @(posedge clk) begin
    if (re) rdata <= words[raddr];
    if (we) words[waddr] <= wdata;
  end
endmodule
