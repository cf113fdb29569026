// Block RAM: one write port, one read port of latency 1; rdata holds its word while re is 0. A read of the
// word that is written in the same cycle gives the old word. Contents are undefined until written.
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
  (* ram_style = "block" *) logic [WIDTH-1:0] words[DEPTH];

  always_ff @(posedge clk) begin
    if (re) rdata <= words[raddr];
    if (we) words[waddr] <= wdata;
  end
endmodule
