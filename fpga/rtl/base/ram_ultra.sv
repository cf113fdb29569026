// Ultra RAM: one write port with an enable for each GRAIN bits, one read port of latency 2 (the word's own
// register, then the output register). A word may be read every cycle. After the last read rdata holds its
// word. A read of the word that is written in the same cycle gives the old word. Contents are undefined until
// written. WIDTH is a multiple of GRAIN.
module ram_ultra #(
    parameter int WIDTH = 72,
    parameter int DEPTH = 4096,
    parameter int GRAIN = 72
) (
    input  logic                     clk,
    input  logic [  WIDTH/GRAIN-1:0] we,
    input  logic [$clog2(DEPTH)-1:0] waddr,
    input  logic [        WIDTH-1:0] wdata,
    input  logic                     re,
    input  logic [$clog2(DEPTH)-1:0] raddr,
    output logic [        WIDTH-1:0] rdata
);
  (* ram_style = "ultra" *) logic [WIDTH-1:0] words[DEPTH];
  logic [WIDTH-1:0] word;

  always_ff @(posedge clk) begin
    if (re) word <= words[raddr];
    for (int g = 0; g < WIDTH / GRAIN; g++) begin
      if (we[g]) words[waddr][g*GRAIN+:GRAIN] <= wdata[g*GRAIN+:GRAIN];
    end
    rdata <= word;
  end
endmodule
