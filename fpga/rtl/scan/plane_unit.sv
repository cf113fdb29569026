// The sum of the query's codes where a plane has a 1, for 64 elements of one query: 16 tables of 16 sums.
//
// Tables: two banks; a write a cycle, of all 16 tables at one address. No stream: 64 bits a cycle, nothing
// stalls. Latency: 3 cycles from bits to sum. With CodeAt's elements it equals the part of a dot product that
// one plane and segment give.
module plane_unit (
    input  logic               clk,
    input  logic               we,
    input  logic               write_bank,
    input  logic        [ 3:0] write_at,
    input  logic [15:0][  9:0] write_sums,
    input  logic               valid,  // for power: bits of other cycles are not looked up
    input  logic               bank,
    input  logic        [63:0] bits,
    output logic signed [13:0] sum
);
  // Sums of two terms each. A sum that goes on without a register has its sign turned over, so that it is
  // not negative: synthesis would join the additions to one of many terms, which takes more LUTs.
  logic signed [9:0] found[16];
  logic signed [10:0] pair[8];
  logic signed [11:0] quarter[4];
  logic [11:0] above[4];
  logic [12:0] half_above[2];
  logic signed [12:0] half[2];
  logic valid1, valid2;

  for (genvar i = 0; i < 16; ++i) begin : g_table
    logic [9:0] word;
    ram_lut #(
        .WIDTH(10),
        .DEPTH(32)
    ) sums (
        .clk,
        .we,
        .waddr({write_bank, write_at}),
        .wdata(write_sums[i]),
        .raddr({bank, bits[4*i+:4]}),
        .rdata(word)
    );
    assign found[i] = word;
  end

  for (genvar i = 0; i < 4; ++i) begin : g_quarter
    assign quarter[i] = 12'(pair[2*i]) + 12'(pair[2*i+1]);
    assign above[i]   = {~quarter[i][11], quarter[i][10:0]};
  end
  for (genvar i = 0; i < 2; ++i) begin : g_half
    assign half_above[i] = 13'(above[2*i]) + 13'(above[2*i+1]);
  end

  always_ff @(posedge clk) begin
    valid1 <= valid;
    valid2 <= valid1;
    if (valid) for (int i = 0; i < 8; ++i) pair[i] <= 11'(found[2*i]) + 11'(found[2*i+1]);
    if (valid1) for (int i = 0; i < 2; ++i) half[i] <= {~half_above[i][12], half_above[i][11:0]};
    if (valid2) sum <= 14'(half[0]) + 14'(half[1]);
  end
endmodule
