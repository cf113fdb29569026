// Block RAM with two ports of latency 1: at `addr` a word is written, or read; at `addr2` one is read. A port's output
// holds its word until the port is used again. A read of the word that is written in the same cycle gives the old word.
// Contents are undefined until written.
module ram_block_two #(
    parameter int WIDTH = 8,
    parameter int DEPTH = 512
) (
    input  logic                     clk,
    input  logic                     en,
    input  logic                     we,     // with en
    input  logic [$clog2(DEPTH)-1:0] addr,
    input  logic [        WIDTH-1:0] wdata,
    output logic [        WIDTH-1:0] rdata,
    input  logic                     en2,
    input  logic [$clog2(DEPTH)-1:0] addr2,
    output logic [        WIDTH-1:0] rdata2
);
  (* ram_style = "block" *) logic [WIDTH-1:0] words[DEPTH];

  always_ff @(posedge clk) begin
    if (en) begin
      rdata <= words[addr];
      if (we) words[addr] <= wdata;
    end
    if (en2) rdata2 <= words[addr2];
  end
endmodule
