// The sums of the codes of G queries where a plane has a 1, for 64 elements: 16 tables of 16 sums a query.
//
// Tables: two banks; a write a cycle, of all tables at one address. No stream: 64 bits a cycle, nothing stalls. All
// queries look up the same address, so that a table of theirs is one RAM: blocks of LUT RAM are 14 bits wide, sums 10.
// Latency: 3 cycles from bits to sums. With CodeAt's elements a sum equals the part of a dot product that one plane
// and segment give.
//
// MERGED: a simulator is quicker with the tables as one memory, and with 16 bits a query, so that one addition serves all
// queries. Entries have 512 more there: no sum is negative, and none carries into the next query's bits. The sums are
// those of the form that is synthesised (fpga/formal/plane_unit_forms.sv).
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
  logic valid1, valid2;
  always_ff @(posedge clk) {valid2, valid1} <= {valid1, valid};

  if (MERGED != 0) begin : g_merged
    typedef logic [G-1:0][15:0] entry_t;
    entry_t [15:0] words[32];
    function automatic entry_t [15:0] spread(input logic [G-1:0][15:0][9:0] from);
      for (int i = 0; i < 16; ++i) begin
        for (int g = 0; g < G; ++g) spread[i][g] = {6'd0, ~from[g][i][9], from[g][i][8:0]};
      end
    endfunction
    always_ff @(posedge clk) if (we) words[{write_bank, write_at}] <= spread(write_sums);
    entry_t half0, half1, sum;
    for (genvar i = 0; i < 8; ++i) begin : g_pair
      entry_t of_two;
      always_ff @(posedge clk) begin
        if (valid) of_two <= words[{bank, bits[8*i+:4]}][2*i] + words[{bank, bits[8*i+4+:4]}][2*i+1];
      end
    end
    always_ff @(posedge clk) begin
      if (valid1) begin
        half0 <= (g_pair[0].of_two + g_pair[1].of_two) + (g_pair[2].of_two + g_pair[3].of_two);
        half1 <= (g_pair[4].of_two + g_pair[5].of_two) + (g_pair[6].of_two + g_pair[7].of_two);
      end
      if (valid2) sum <= half0 + half1;
    end
    // 16 * 512 is the sign of a sum.
    for (genvar g = 0; g < G; ++g) begin : g_sum
      assign sums[g] = {~sum[g][13], sum[g][12:0]};
    end
  end else begin : g_apart
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
    logic signed [10:0] pair[G][8];
    logic signed [12:0] half[G][2];
    always_ff @(posedge clk) begin
      for (int g = 0; g < G; ++g) begin
        if (valid) begin
          for (int i = 0; i < 8; ++i) pair[g][i] <= 11'($signed(found[2*i][g])) + 11'($signed(found[2*i+1][g]));
        end
        if (valid1) begin
          for (int i = 0; i < 2; ++i) begin
            half[g][i] <= half_of(above(pair[g][4*i], pair[g][4*i+1]), above(pair[g][4*i+2], pair[g][4*i+3]));
          end
        end
        if (valid2) sums[g] <= 14'(half[g][0]) + 14'(half[g][1]);
      end
    end
  end
endmodule
