// The sums of the codes of G queries where a plane has a 1, for 64 elements: 16 tables of 16 sums a query.
//
// Tables: two banks; a write a cycle, of all tables at one address. No stream: 64 bits a cycle, nothing stalls. All
// queries look up the same address, so that a table of theirs is one RAM: blocks of LUT RAM are 14 bits wide, sums 10.
// Latency: 3 cycles from bits to sums. With CodeAt's elements a sum equals the part of a dot product that one plane
// and segment give.
//
// MERGED: the tables are one memory, written at once and read in 16 places. The sums are the same; a simulated card is
// a fifth faster, but no synthesis tool need see LUT RAM in it.
module plane_unit #(
    parameter int G = 1,
`ifdef VERILATOR
    parameter int MERGED = 1
`else
    parameter int MERGED = 0
`endif
) (
    input  logic                    clk,
    input  logic                    we,
    input  logic                    write_bank,
    input  logic [ 3:0]             write_at,
    input  logic [G-1:0][15:0][9:0] write_sums,
    input  logic                    valid,  // for power: bits of other cycles are not looked up
    input  logic                    bank,
    input  logic [63:0]             bits,
    output logic [G-1:0][13:0]      sums
);
  // Sums of two terms each. A sum that goes on without a register has its sign turned over, so that it is
  // not negative: synthesis would join the additions to one of many terms, which takes more LUTs.
  function automatic logic [11:0] above(input logic signed [10:0] a, input logic signed [10:0] b);
    logic signed [11:0] sum;
    sum   = 12'(a) + 12'(b);
    above = {~sum[11], sum[10:0]};
  endfunction
  function automatic logic [12:0] half_of(input logic [11:0] a, input logic [11:0] b);
    logic [12:0] sum;
    sum = 13'(a) + 13'(b);
    half_of = {~sum[12], sum[11:0]};
  endfunction

  logic signed [10:0] pair[G][8];
  if (MERGED != 0) begin : g_merged
    // Blocks of LUT RAM are 14 bits wide: none has bits of two tables, since they are read apart.
    localparam int STRIDE = (10 * G + 13) / 14 * 14;
    logic [15:0][STRIDE-1:0] words[32];
    logic [15:0][STRIDE-1:0] written;
    for (genvar i = 0; i < 16; ++i) begin : g_table
      for (genvar g = 0; g < G; ++g) begin : g_written
        assign written[i][10*g+:10] = write_sums[g][i];
      end
      assign written[i][STRIDE-1:10*G] = {(STRIDE - 10 * G) {write_sums[0][i][0]}};
    end
    always_ff @(posedge clk) begin
      if (we) words[{write_bank, write_at}] <= written;
      if (valid) begin
        for (int i = 0; i < 8; ++i) begin
          automatic logic [STRIDE-1:0] even = words[{bank, bits[8*i+:4]}][2*i];
          automatic logic [STRIDE-1:0] odd = words[{bank, bits[8*i+4+:4]}][2*i+1];
          for (int g = 0; g < G; ++g) pair[g][i] <= 11'($signed(even[10*g+:10])) + 11'($signed(odd[10*g+:10]));
        end
      end
    end
  end else begin : g_apart
    logic [15:0][G-1:0][9:0] found;
    for (genvar i = 0; i < 16; ++i) begin : g_table
      logic [G-1:0][9:0] written;
      for (genvar g = 0; g < G; ++g) begin : g_written
        assign written[g] = write_sums[g][i];
      end
      ram_lut #(
          .WIDTH(10 * G),
          .DEPTH(32)
      ) table_of_sums (
          .clk,
          .we,
          .waddr({write_bank, write_at}),
          .wdata(written),
          .raddr({bank, bits[4*i+:4]}),
          .rdata(found[i])
      );
    end
    always_ff @(posedge clk) begin
      if (valid) begin
        for (int i = 0; i < 8; ++i) begin
          for (int g = 0; g < G; ++g) pair[g][i] <= 11'($signed(found[2*i][g])) + 11'($signed(found[2*i+1][g]));
        end
      end
    end
  end

  logic valid1, valid2;
  logic signed [12:0] half[G][2];
  always_ff @(posedge clk) begin
    valid1 <= valid;
    valid2 <= valid1;
    if (valid1) begin
      for (int g = 0; g < G; ++g) begin
        for (int i = 0; i < 2; ++i) begin
          half[g][i] <= half_of(above(pair[g][4*i], pair[g][4*i+1]), above(pair[g][4*i+2], pair[g][4*i+3]));
        end
      end
    end
    if (valid2) for (int g = 0; g < G; ++g) sums[g] <= 14'(half[g][0]) + 14'(half[g][1]);
  end
endmodule
