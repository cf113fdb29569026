// Sums of 64 elements to dot products of vectors of 64 to 512 elements, over the planes of an item by Horner's
// rule: acc = 2 acc + sum, the first plane with `negative` as -sum (two's complement).
//
// No stream: the sums of a beat's 8 segments a cycle; nothing stalls. Rows: a row holds 8 vectors of G
// queries, as many beats as hold them write their part of it. `row` is {block, row of the item}. Latency: a
// row is complete for `read_row` 4 cycles after its last sums; the read has no register.
module plane_combine #(
    parameter int G = 4
) (
    input  logic                             clk,
    input  logic                             valid,
    input  logic                             first,
    input  logic                             negative,
    input  logic                      [ 1:0] merge,    // 0: 64 elements a vector, 1: 128, 2: 256, 3: 512
    input  logic                             pairs,    // merge is not 0
    input  logic                             whole,    // merge is 3
    input  logic                      [ 2:0] position, // beats of the row before
    input  logic                      [ 4:0] row,
    input  logic   [7:0][G-1:0][13:0]        sums,
    input  logic                      [ 4:0] read_row,
    output logic   [7:0][G-1:0][23:0]        dots
);
  typedef struct packed {
    logic       first;
    logic       minus;
    logic [4:0] row;
    logic [7:0] slots;
  } tag_t;

  logic valid1, valid2, valid3;
  tag_t tag, tag1, tag2, tag3;
  logic whole1, whole2;
  logic [1:0] merge1, merge2;
  always_comb begin
    tag = '{first: first, minus: first && negative, row: row, slots: '0};
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
    valid3 <= valid2;
    {tag1, merge1, whole1} <= {tag, merge, whole};
    {tag2, merge2, whole2} <= {tag1, merge1, whole1};
    tag3 <= tag2;
  end

  // Sums in place: term[t] is that of the vector that begins at segment t, if one does.
  logic [7:0][G-1:0][16:0] vector;
  for (genvar g = 0; g < G; ++g) begin : g_query
    logic signed [14:0] two[8], term1[8];
    logic signed [15:0] four[8], term2[8];
    logic [7:0][16:0] term;
    for (genvar t = 0; t < 8; ++t) begin : g_term
      if (t % 2 == 0) assign two[t] = 15'($signed(sums[t][g])) + (pairs ? 15'($signed(sums[t+1][g])) : 15'd0);
      else assign two[t] = 15'($signed(sums[t][g]));
      if (t % 4 == 0) assign four[t] = 16'(term1[t]) + (merge1[1] ? 16'(term1[t+2]) : 16'd0);
      else assign four[t] = 16'(term1[t]);
      if (t == 0) assign term[t] = 17'(term2[0]) + (whole2 ? 17'(term2[4]) : 17'd0);
      else assign term[t] = 17'(term2[t]);
    end
    always_ff @(posedge clk) begin
      if (valid) term1 <= two;
      if (valid1) term2 <= four;
      if (valid2) begin
        for (int t = 0; t < 8; ++t) begin
          unique case (merge2)
            2'd0: vector[t][g] <= term[t];
            2'd1: vector[t][g] <= term[2*t%8];
            2'd2: vector[t][g] <= term[4*t%8];
            2'd3: vector[t][g] <= term[0];
          endcase
        end
      end
    end
  end

  // Two copies: one is read to be added to, the other by the scorers.
  for (genvar t = 0; t < 8; ++t) begin : g_slot
    logic [G-1:0][23:0] held, next;
    logic we;
    assign we = valid3 && tag3.slots[t];
    always_comb begin
      for (int g = 0; g < G; ++g)
      next[g] = (24'($signed(vector[t][g])) ^ {24{tag3.minus}}) + {tag3.first ? 23'd0 : held[g][22:0], tag3.minus};
    end
    ram_lut #(
        .WIDTH(24 * G),
        .DEPTH(32)
    ) sum (
        .clk,
        .we,
        .waddr(tag3.row),
        .wdata(next),
        .raddr(tag3.row),
        .rdata(held)
    );
    ram_lut #(
        .WIDTH(24 * G),
        .DEPTH(32)
    ) result (
        .clk,
        .we,
        .waddr(tag3.row),
        .wdata(next),
        .raddr(read_row),
        .rdata(dots[t])
    );
  end
endmodule
