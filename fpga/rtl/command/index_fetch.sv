// Reads what a descriptor names: its index in the queue's table, and the tokens of its slot.
//
// Stream in: a descriptor. Stream out: it, with the index and the tokens (CardIndex of proto/layout/card.h; with
// descriptor_check what layout::IndexInfo has). An index id out of bounds, an index that does not exist and a slot
// that it does not have are never looked up: they give zeros. Latency: 6 cycles and two reads, one after the other.
// Stalls: host memory, and `fetched`.
module index_fetch
  import mnemo_pkg::*;
  import command_types::*;
(
    input  logic               clk,
    input  logic               rst,
    input  logic               taken_valid,
    output logic               taken_ready,
    input  taken_t             taken,
    output logic               read_valid,
    input  logic               read_ready,
    output host_read_t         read,
    input  logic               beat_valid,
    output logic               beat_ready,
    input  logic       [511:0] beat,
    output logic               fetched_valid,
    input  logic               fetched_ready,
    output fetched_t           fetched
);
  typedef enum logic [2:0] {
    IDLE,
    BOUNDS,
    INDEX,
    SLOT,
    TOKENS,
    FETCHED
  } state_t;

  state_t state;
  logic waits_beat, asked, came;  // asked: the read of the present state is under way; came: its beat was taken
  logic [15:0] slot;

  assign taken_ready = state == IDLE;
  assign slot = fetched.taken.descriptor.layer_slot;
  assign beat_ready = 1'b1;  // a beat comes for the read under way alone
  assign waits_beat = state == INDEX || state == TOKENS;
  assign fetched_valid = state == FETCHED;

  always_ff @(posedge clk) begin
    if (rst) begin
      state      <= IDLE;
      read_valid <= 1'b0;
      asked      <= 1'b0;
    end else begin
      read_valid <= waits_beat && !asked && !(read_valid && read_ready);
      asked      <= waits_beat && !came && (asked || (read_valid && read_ready));
      unique case (state)
        IDLE: begin
          if (taken_valid) state <= BOUNDS;
        end
        BOUNDS: begin
          state <= (fetched.taken.descriptor.index_id < fetched.taken.regs.indexes) ? INDEX : FETCHED;
        end
        INDEX: begin
          if (came) state <= SLOT;
        end
        SLOT: begin
          state <= (fetched.index.exists != '0 && slot < fetched.index.layer_slots) ? TOKENS : FETCHED;
        end
        TOKENS: begin
          if (came) state <= FETCHED;
        end
        FETCHED: begin
          if (fetched_ready) state <= IDLE;
        end
        default: state <= IDLE;
      endcase
    end
    came <= !rst && beat_valid;
    if (state == IDLE) begin
      fetched.taken  <= taken;
      fetched.index  <= '0;
      fetched.tokens <= '0;
    end
    read.beats <= 24'd1;
    if (state == INDEX) begin
      if (!read_valid)
        read.address <= fetched.taken.regs.index_table + {26'b0, fetched.taken.descriptor.index_id, 6'b0};
      if (!came) fetched.index <= card_index_t'(beat);
    end
    if (state == SLOT && fetched.index.exists == '0) fetched.index <= '0;
    if (state == TOKENS) begin
      if (!read_valid) read.address <= {fetched.index.tokens_address[63:6], 6'b0} + {46'b0, slot[15:4], 6'b0};
      if (!came) fetched.tokens <= beat[32*slot[3:0]+:32];
    end
  end

  stream_if #(
      .WIDTH($bits(fetched_t))
  ) check_fetched (
      .clk,
      .rst,
      .valid(fetched_valid),
      .ready(fetched_ready),
      .data (fetched)
  );
endmodule
