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
  logic signed [9:0] found[16];
  logic signed [9:0] part[16];
  logic signed [11:0] quarter[4];
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

  always_ff @(posedge clk) begin
    valid1 <= valid;
    valid2 <= valid1;
    if (valid) part <= found;
    if (valid1) begin
      for (int i = 0; i < 4; ++i)
      quarter[i] <= (12'(part[4*i]) + 12'(part[4*i+1])) + (12'(part[4*i+2]) + 12'(part[4*i+3]));
    end
    if (valid2) sum <= (14'(quarter[0]) + 14'(quarter[1])) + (14'(quarter[2]) + 14'(quarter[3]));
  end
endmodule
