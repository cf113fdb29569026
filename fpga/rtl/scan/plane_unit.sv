// The sums of the codes of G queries where a plane has a 1, for 64 elements: 16 tables of 16 sums a query.
//
// Tables: two banks; a write a cycle, of all tables at one address. No stream: 64 bits a cycle, nothing stalls. All
// queries look up the same address, so that a table of theirs is one RAM: blocks of LUT RAM are 14 bits wide, sums 10.
// Latency: 3 cycles from bits to sums. With CodeAt's elements a sum equals the part of a dot product that one plane
// and segment give.
module plane_unit #(
    parameter int G = 1
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

  logic valid1, valid2;
  always_ff @(posedge clk) begin
    valid1 <= valid;
    valid2 <= valid1;
  end

  // Sums of two terms each. A sum that goes on without a register has its sign turned over, so that it is
  // not negative: synthesis would join the additions to one of many terms, which takes more LUTs.
  for (genvar g = 0; g < G; ++g) begin : g_query
    logic signed [10:0] pair[8];
    logic signed [11:0] quarter[4];
    logic [11:0] above[4];
    logic [12:0] half_above[2];
    logic signed [12:0] half[2];
    for (genvar i = 0; i < 4; ++i) begin : g_quarter
      assign quarter[i] = 12'(pair[2*i]) + 12'(pair[2*i+1]);
      assign above[i]   = {~quarter[i][11], quarter[i][10:0]};
    end
    for (genvar i = 0; i < 2; ++i) begin : g_half
      assign half_above[i] = 13'(above[2*i]) + 13'(above[2*i+1]);
    end
    always_ff @(posedge clk) begin
      if (valid) begin
        for (int i = 0; i < 8; ++i) pair[i] <= 11'($signed(found[2*i][g])) + 11'($signed(found[2*i+1][g]));
      end
      if (valid1) for (int i = 0; i < 2; ++i) half[i] <= {~half_above[i][12], half_above[i][11:0]};
      if (valid2) sums[g] <= 14'(half[0]) + 14'(half[1]);
    end
  end
endmodule
