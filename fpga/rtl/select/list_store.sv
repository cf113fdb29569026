// Two lists of a lane: pages with the entries that the first stage of a cascade has selected, or those of the k best
// pages, up to BANK_WORDS / 2 each.
//
// Streams: writes of all lanes, those of this lane are kept; after `done` the list goes out, an entry in 4
// cycles, the lists in the order in which they were written, with `twice` twice. `row` of a page of a slot follows `read` by a cycle; rows stay until
// the slot is written again. Nothing stalls the writes: hit_collector's jobs see to it that the slot is free.
//
// Holds the positions of layout::TopK of one lane.
module list_store #(
    parameter int BANK_WORDS = 4096,
    localparam int LIST = $clog2(BANK_WORDS / 2)
) (
    input  logic                           clk,
    input  logic                           rst,
    input  logic [4:0]                     lane_id,
    input  select_types::list_write_t      write,
    output logic                           list_valid,
    input  logic                           list_ready,
    output card_types::list_entry_t        list,
    input  logic                           read,
    input  logic                           read_slot,
    input  logic [LIST-1:0]                read_page,
    output logic [select_types::ROW-1:0]   row
);

  import select_types::*;

  typedef enum logic [1:0] {
    WAIT,
    FETCH,
    FETCHED,
    OFFER
  } state_t;

  state_t state;
  logic [1:0] complete, again;
  logic [1:0][LIST:0] length;
  logic out_slot;
  logic [LIST:0] at;
  wire mine = write.valid && write.lane == lane_id;
  wire [LIST:0] place = {write.slot, length[write.slot][LIST-1:0]};
  wire empty = length[out_slot] == '0;
  wire fetch = state == WAIT && complete[out_slot] && !empty;
  logic [ROW+63:0] fetched;

  ram_ultra #(
      .WIDTH(ROW + 64),
      .DEPTH(BANK_WORDS),
      .GRAIN(ROW + 64)
  ) entries (
      .clk,
      .we(mine),
      .waddr(place),
      .wdata({write.row, write.mask}),
      .re(fetch),
      .raddr({out_slot, at[LIST-1:0]}),
      .rdata(fetched)
  );

  ram_block #(
      .WIDTH(ROW),
      .DEPTH(BANK_WORDS)
  ) rows (
      .clk,
      .we(mine),
      .waddr(place),
      .wdata(write.row),
      .re(read),
      .raddr({read_slot, read_page}),
      .rdata(row)
  );

  always_ff @(posedge clk) begin
    if (mine) length[write.slot] <= length[write.slot] + (LIST + 1)'(1);
    if (write.done) begin
      complete[write.slot] <= 1'b1;
      again[write.slot] <= write.twice;
    end
    unique case (state)
      WAIT: begin
        list <= '{last: 1'b1, none: 1'b1, row: '0, mask: '0};
        if (complete[out_slot]) begin
          state <= empty ? OFFER : FETCH;
          list_valid <= empty;
        end
      end
      FETCH: state <= FETCHED;
      FETCHED: begin
        list <= '{
            last: at + (LIST + 1)'(1) == length[out_slot],
            none: 1'b0,
            row: fetched[64+:ROW],
            mask: fetched[63:0]
        };
        at <= at + (LIST + 1)'(1);
        list_valid <= 1'b1;
        state <= OFFER;
      end
      default:
      if (list_ready) begin
        list_valid <= 1'b0;
        state <= WAIT;
        if (list.last) begin
          again[out_slot] <= 1'b0;
          at <= '0;
          if (!again[out_slot]) begin
            complete[out_slot] <= 1'b0;
            length[out_slot] <= '0;
            out_slot <= !out_slot;
          end
        end
      end
    endcase
    if (rst) begin
      state <= WAIT;
      complete <= 2'b00;
      length <= '0;
      out_slot <= 1'b0;
      at <= '0;
      list_valid <= 1'b0;
    end
  end

`ifndef SYNTHESIS
  assert property (@(posedge clk) disable iff (rst) mine |-> !complete[write.slot]);
`endif

endmodule
