// Sums of 64 elements to dot products of vectors of 64 to 512 elements, over the planes of an item by Horner's
// rule: acc = 2 acc + sum, the first plane with `negative` as -sum (two's complement).
//
// No stream: the sums of a beat's 8 segments a cycle; nothing stalls. Rows: a row holds 8 vectors of G
// queries, as many beats as hold them write their part of it. `row` is {block, row of the item}. Latency: a
// row is complete for `read_row` 3 cycles after its last sums; the read has no register.
module plane_combine #(
    parameter int G = 4
) (
    input  logic                             clk,
    input  logic                             valid,
    input  logic                             first,
    input  logic                             negative,
    input  logic                      [ 1:0] merge,    // 0: 64 elements a vector, 1: 128, 2: 256, 3: 512
    input  logic                      [ 2:0] position, // beats of the row before
    input  logic                      [ 4:0] row,
    input  logic   [7:0][G-1:0][13:0]        sums,
    input  logic                      [ 4:0] read_row,
    output logic   [7:0][G-1:0][23:0]        dots
);
  typedef struct packed {
    logic       first;
    logic       negative;
    logic [4:0] row;
    logic [7:0] slots;
  } tag_t;

  logic valid1, valid2;
  tag_t tag, tag1, tag2;
  logic [1:0] merge1;
  logic signed [13:0] one[8][G];
  logic signed [14:0] two[4][G];
  logic signed [15:0] four[2][G];
  logic signed [16:0] vector[8][G];

  always_comb begin
    tag = '{first: first, negative: negative, row: row, slots: '0};
    for (int t = 0; t < 8; ++t) begin
      unique case (merge)
        2'd0: tag.slots[t] = 1'b1;
        2'd1: tag.slots[t] = position[0] == 1'(t >> 2);
        2'd2: tag.slots[t] = position[1:0] == 2'(t >> 1);
        2'd3: tag.slots[t] = position == 3'(t);
      endcase
    end
  end

  always_ff @(posedge clk) begin
    valid1 <= valid;
    valid2 <= valid1;
    tag1   <= tag;
    merge1 <= merge;
    tag2   <= tag1;
  end

  for (genvar g = 0; g < G; ++g) begin : g_query
    always_ff @(posedge clk) begin
      if (valid) begin
        for (int t = 0; t < 8; ++t) one[t][g] <= sums[t][g];
        for (int t = 0; t < 4; ++t) two[t][g] <= 15'($signed(sums[2*t][g])) + 15'($signed(sums[2*t+1][g]));
        for (int t = 0; t < 2; ++t)
        four[t][g] <= (16'($signed(
            sums[4*t][g]
        )) + 16'($signed(
            sums[4*t+1][g]
        ))) + (16'($signed(
            sums[4*t+2][g]
        )) + 16'($signed(
            sums[4*t+3][g]
        )));
      end
      if (valid1) begin
        for (int t = 0; t < 8; ++t) begin
          unique case (merge1)
            2'd0: vector[t][g] <= 17'(one[t][g]);
            2'd1: vector[t][g] <= 17'(two[t%4][g]);
            2'd2: vector[t][g] <= 17'(four[t%2][g]);
            2'd3: vector[t][g] <= 17'(four[0][g]) + 17'(four[1][g]);
          endcase
        end
      end
    end
  end

  // Two copies: one is read to be added to, the other by the scorers.
  for (genvar t = 0; t < 8; ++t) begin : g_slot
    logic [G-1:0][23:0] held, next;
    logic we;
    assign we = valid2 && tag2.slots[t];
    always_comb begin
      for (int g = 0; g < G; ++g)
      next[g] = (tag2.first ? 24'd0 : {held[g][22:0], 1'b0}) +
            (24'(vector[t][g]) ^ {24{tag2.negative && tag2.first}}) + 24'(tag2.negative && tag2.first);
    end
    ram_lut #(
        .WIDTH(24 * G),
        .DEPTH(32)
    ) sum (
        .clk,
        .we,
        .waddr(tag2.row),
        .wdata(next),
        .raddr(tag2.row),
        .rdata(held)
    );
    ram_lut #(
        .WIDTH(24 * G),
        .DEPTH(32)
    ) result (
        .clk,
        .we,
        .waddr(tag2.row),
        .wdata(next),
        .raddr(read_row),
        .rdata(dots[t])
    );
  end
endmodule
