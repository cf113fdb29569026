// Sums of 64 elements to dot products of vectors of 64 to 512 elements, over the planes of an item by Horner's
// rule: acc = 2 acc + sum. Two's complement takes the first plane as -sum: there the second plane comes with `turn`,
// acc = sum - 2 acc. So sums go into the addition as they are, which saves a LUT a bit before the carry chain.
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
    input  logic                             turn,
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
    logic       turn;
    logic [4:0] row;
    logic [7:0] slots;
  } tag_t;

  logic valid1, valid2, valid3;
  tag_t tag, tag1, tag2, tag3;
  logic whole1, whole2;
  logic [1:0] merge1, merge2;
  always_comb begin
    tag = '{first: first, turn: turn, row: row, slots: '0};
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
    // x + y = x - ~y - 1, and the lowest bit takes the 1 away: a difference has x before the carry chain as it is,
    // where a sum would have y, which takes a LUT a bit.
    // verilator lint_off UNUSEDSIGNAL
    logic [15:0] two_wide[4];
    logic [16:0] four_wide[2];
    logic [17:0] eight_wide;
    // verilator lint_on UNUSEDSIGNAL
    for (genvar t = 0; t < 8; t += 2) begin : g_two
      assign two_wide[t/2] = {15'($signed(sums[t][g])), 1'b0} -
          {pairs ? ~15'($signed(sums[t+1][g])) : '1, 1'b1};
      assign two[t] = two_wide[t/2][15:1];
      assign two[t+1] = 15'($signed(sums[t+1][g]));
    end
    for (genvar t = 0; t < 8; t += 4) begin : g_four
      assign four_wide[t/4] = {16'(term1[t]), 1'b0} - {merge1[1] ? ~16'(term1[t+2]) : '1, 1'b1};
      assign four[t] = four_wide[t/4][16:1];
      for (genvar i = 1; i < 4; ++i) begin : g_others
        assign four[t+i] = 16'(term1[t+i]);
      end
    end
    assign eight_wide = {17'(term2[0]), 1'b0} - {whole2 ? ~17'(term2[4]) : '1, 1'b1};
    assign term[0] = eight_wide[17:1];
    for (genvar t = 1; t < 8; ++t) begin : g_term
      assign term[t] = 17'(term2[t]);
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
    // The sums' topmost bit is never doubled.
    // verilator lint_off UNUSEDSIGNAL
    logic [G-1:0][23:0] held;
    logic [G-1:0][24:0] carried;
    // verilator lint_on UNUSEDSIGNAL
    logic [G-1:0][23:0] doubled, next;
    logic we;
    assign we = valid3 && tag3.slots[t];
    always_comb begin
      {doubled, carried, next} = 'x;
      if (valid3) begin  // where nothing is written a simulator has nothing to add
        for (int g = 0; g < G; ++g) begin
          // As above; `turn` comes in at the lowest bit.
          doubled[g] = tag3.first ? '1 : ~{held[g][22:0], 1'b0} ^ {24{tag3.turn}};
          carried[g] = {24'($signed(vector[t][g])), tag3.turn} - {doubled[g], 1'b1};
          next[g]    = carried[g][24:1];
        end
      end
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
