// Looks up the beats of planes for G queries and keeps the dot products of up to 4 items.
//
// Streams: items (one page and pass each), beats of planes from page_buffer. An item takes a block of 8 rows;
// row r holds vectors 8 r to 8 r + 7 (scores read it without a register). block_done comes when an item's
// block is complete, block_free gives the oldest back. Latency: 9 cycles from a beat to its row. A beat a
// cycle, one cycle between items. Stalls: no beat, tables that are not built, no free block.
module plane_core
  import card_types::*;
  import scan_types::*;
#(
    parameter int G = 4
) (
    input  logic                      clk,
    input  logic                      rst,
    input  logic                      form_we,
    input  logic [  1:0]              form_slot,
    // Each stage keeps what it needs of a job, and of an item.
    // verilator lint_off UNUSEDSIGNAL
    input  form_t                     form,
    input  logic                      item_valid,
    output logic                      item_ready,
    input  item_t                     item,
    // verilator lint_on UNUSEDSIGNAL
    input  logic                      plane_valid,
    output logic                      plane_take,
    output logic                      plane_last,
    output logic                      plane_again,
    input  logic [511:0]              plane,
    input  logic                      table_we,
    input  logic                      table_bank,
    input  logic [  2:0]              table_segment,
    input  logic [  3:0]              table_at,
    input  logic [G-1:0][15:0][9:0]   table_sums,
    input  logic [  1:0]              table_merge,  // of the job whose tables are built
    input  logic [  1:0]              full,
    output logic                      release_valid,
    output logic                      release_bank,
    output logic                      block_done,
    input  logic                      block_free,
    input  logic [  4:0]              read_row,
    output logic [7:0][G-1:0][23:0]   dots,
    output logic                      wait_tables,
    output logic                      wait_block
);
  typedef struct packed {
    kind_t      kind;
    logic       page_row;
    logic [1:0] merge;
    logic [3:0] planes;
    logic       positive;  // the first plane does not stand for a negative value
  } shape_t;
  shape_t shape_in, shape;
  logic [$bits(shape_t)-1:0] shape_bits;
  assign shape_in = '{
          kind: form.kind,
          page_row: form.page_row,
          merge: form.merge,
          planes: form.planes,
          positive: form.two_bit || form.sign_stage
      };
  ram_lut #(
      .WIDTH($bits(shape_t)),
      .DEPTH(4)
  ) shapes (
      .clk,
      .we(form_we),
      .waddr(form_slot),
      .wdata(shape_in),
      .raddr(item.job),
      .rdata(shape_bits)
  );
  assign shape = shape_t'(shape_bits);

  // The item at hand.
  logic running, start, take, beat_last, plane_is_last, item_last, first, second;  // the plane at hand
  logic [4:0] at, left, last, next_last;  // beats of the plane, after this one: left, of a whole plane: last
  logic one_beat;
  logic [3:0] planes_left;
  logic [1:0] merge, block;
  logic [2:0] blocks_free;
  logic positive;
  assign start = item_valid && !running && full[item.bank] && blocks_free != '0;
  assign take = running && plane_valid;
  assign next_last = last_beat_of_plane(shape.kind, shape.page_row, shape.merge);
  assign item_last = take && beat_last && plane_is_last;
  assign plane_take = take;
  assign plane_last = beat_last && plane_is_last;
  assign plane_again = !item.last_pass;
  assign item_ready = item_last;
  assign release_valid = item_last && item.free_bank;
  assign release_bank = item.bank;
  assign wait_tables = item_valid && !running && !full[item.bank] && plane_valid;
  assign wait_block = item_valid && !running && full[item.bank] && blocks_free == '0 && plane_valid;

  always_ff @(posedge clk) begin
    if (rst) begin
      running <= 1'b0;
      block <= '0;
      blocks_free <= 3'd4;
    end else begin
      if (start) running <= 1'b1;
      else if (item_last) running <= 1'b0;
      if (item_last) block <= block + 2'd1;
      blocks_free <= blocks_free - 3'(start) + 3'(block_free);
    end
    if (start) begin
      at <= '0;
      left <= next_last;
      last <= next_last;
      beat_last <= next_last == '0;
      one_beat <= next_last == '0;
      planes_left <= shape.planes - 4'd1;
      plane_is_last <= shape.planes == 4'd1;
      first <= 1'b1;
      second <= 1'b0;
      merge <= shape.merge;
      positive <= shape.positive;
    end else if (take) begin
      at <= beat_last ? '0 : at + 5'd1;
      left <= beat_last ? last : left - 5'd1;
      beat_last <= beat_last ? one_beat : left == 5'd1;
      if (beat_last) begin
        planes_left <= planes_left - 4'd1;
        plane_is_last <= planes_left == 4'd1;
        first <= 1'b0;
        second <= first;
      end
    end
  end

  // Companions of a beat: 2 cycles to the plane units, 3 through them.
  typedef struct packed {
    logic       bank;
    logic       first;
    logic       turn;
    logic [1:0] merge;
    logic       pairs;  // merge is not 0
    logic       whole;  // merge is 3
    logic [1:0] block;
    logic [4:0] at;
  } tag_t;
  localparam int BITS = $bits(tag_t);
  tag_t tag, tag2, tag5;
  logic [BITS-1:0] tag2_bits, tag5_bits;
  logic valid[6], done[10];
  logic unused;
  assign tag = '{
          bank: item.bank,
          first: first,
          turn: second && !positive,
          merge: merge,
          pairs: merge != 2'd0,
          whole: merge == 2'd3,
          block: block,
          at: at
      };
  delay #(
      .WIDTH(BITS),
      .CYCLES(2)
  ) to_units (
      .clk,
      .in_data(tag),
      .out_data(tag2_bits)
  );
  delay #(
      .WIDTH(BITS),
      .CYCLES(3)
  ) through_units (
      .clk,
      .in_data(tag2_bits),
      .out_data(tag5_bits)
  );
  assign tag2 = tag_t'(tag2_bits);
  assign tag5 = tag_t'(tag5_bits);
  assign unused = &{1'b0, tag2, tag5.bank, 1'b0};
  assign valid[0] = take;
  assign done[0] = item_last;
  always_ff @(posedge clk) begin
    for (int i = 1; i < 6; ++i) valid[i] <= valid[i-1] && !rst;
    for (int i = 1; i < 10; ++i) done[i] <= done[i-1] && !rst;
  end
  assign block_done = done[9];

  logic [2:0] segments, position;
  logic [4:0] row;
  logic [7:0][G-1:0][13:0] sums;
  assign segments = segment_last(table_merge);
  always_comb begin
    unique case (tag5.merge)
      2'd0: begin
        row = {tag5.block, tag5.at[2:0]};
        position = '0;
      end
      2'd1: begin
        row = {tag5.block, tag5.at[3:1]};
        position = {2'b0, tag5.at[0]};
      end
      2'd2: begin
        row = {tag5.block, tag5.at[4:2]};
        position = {1'b0, tag5.at[1:0]};
      end
      2'd3: begin
        row = {tag5.block, 3'd0};
        position = tag5.at[2:0];
      end
    endcase
  end

  for (genvar u = 0; u < 8; ++u) begin : g_unit
    plane_unit #(
        .G(G)
    ) unit (
        .clk,
        .we(table_we && (3'(u) & segments) == table_segment),
        .write_bank(table_bank),
        .write_at(table_at),
        .write_sums(table_sums),
        .valid(valid[2]),
        .bank(tag2.bank),
        .bits(plane[64*u+:64]),
        .sums(sums[u])
    );
  end
  plane_combine #(
      .G(G)
  ) combine (
      .clk,
      .valid(valid[5]),
      .first(tag5.first),
      .turn(tag5.turn),
      .merge(tag5.merge),
      .pairs(tag5.pairs),
      .whole(tag5.whole),
      .position,
      .row,
      .sums,
      .read_row,
      .dots
  );
endmodule
