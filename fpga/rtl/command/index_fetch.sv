// Reads what a descriptor names: its index in the queue's table, and the tokens of its slot. Asks the query loader for
// the first queries meanwhile.
//
// Stream in: a descriptor. Stream out: it, with the index and the tokens (CardIndex of proto/layout/card.h; with
// descriptor_check what layout::IndexInfo has). An index id out of bounds, an index that does not exist and a slot
// that it does not have are never looked up: they give zeros. `early`: the payload of a descriptor that has queries and
// whose payload lies within its region; it may be dropped. It comes once a descriptor, while its index is read.
// PLACES entries of before have told where tokens lie. When one of them had the descriptor's queue, id and generation,
// the tokens are read behind the index, and anew when the index tells another place. `opened`: a queue's table is
// another one, so all are forgotten.
// Latency: 8 cycles and a read; another read, one after the other, when the place is not known.
// Stalls: host memory, and `fetched`.
module index_fetch
  import mnemo_pkg::*;
  import command_types::*;
#(
    parameter int PLACES = 16
) (
    input  logic               clk,
    input  logic               rst,
    input  logic               opened,
    input  logic               taken_valid,
    output logic               taken_ready,
    input  taken_t             taken,
    output logic               read_valid,
    input  logic               read_ready,
    output host_read_t         read,
    input  logic               beat_valid,
    output logic               beat_ready,
    input  logic       [511:0] beat,
    output logic               early_valid,
    output host_read_t         early,
    output logic               fetched_valid,
    input  logic               fetched_ready,
    output fetched_t           fetched
);
  typedef enum logic [2:0] {
    IDLE,
    BOUNDS,
    INDEX,
    LOOK,
    SLOT,
    SKIP,
    TOKENS,
    FETCHED
  } state_t;

  localparam int AT = $clog2(PLACES);

  typedef struct packed {
    logic [2:0]     number;
    logic [31-AT:0] id;
    logic [15:0]    generation;
    logic [15:0]    layer_slots;
    logic [57:0]    tokens;  // address, in beats
  } place_t;

  state_t state;
  logic asked;  // the read of INDEX or TOKENS
  logic ahead;  // tokens are asked for by their place
  logic came;  // a beat was taken in the cycle before
  logic settled, told, exists, same_low, same_high;  // same: the place's tokens are those of the index
  logic known_id, known_generation, known_slot;  // the place is that of the descriptor
  logic [63:0] address;  // of the next read, a cycle after what it is made of
  logic [15:0] slot;
  logic [31:0] id;
  logic [PLACES-1:0] valid;
  place_t stored, place;

  assign taken_ready = state == IDLE;
  assign slot = fetched.taken.descriptor.layer_slot;
  assign id = fetched.taken.descriptor.index_id;
  assign beat_ready = (state == INDEX || state == SKIP || state == TOKENS) && !came;
  assign fetched_valid = state == FETCHED;

  ram_lut #(
      .WIDTH($bits(place_t)),
      .DEPTH(PLACES)
  ) places (
      .clk,
      .we(state == SLOT && exists),
      .waddr(id[AT-1:0]),
      .wdata({
        fetched.taken.number,
        id[31:AT],
        fetched.index.generation,
        fetched.index.layer_slots,
        fetched.index.tokens_address[63:6]
      }),
      .raddr(id[AT-1:0]),
      .rdata(stored)
  );

  // The place is that of the descriptor's index from the second cycle of INDEX on.
  logic kept;
  always_ff @(posedge clk) begin
    if (rst || opened) valid <= '0;
    else if (state == SLOT && exists) valid[id[AT-1:0]] <= 1'b1;
    if (state == BOUNDS) begin
      place <= stored;
      kept  <= valid[id[AT-1:0]];
    end
    settled <= state == INDEX;
    exists <= fetched.index.exists != '0 && slot < fetched.index.layer_slots;
    same_low <= fetched.index.tokens_address[34:6] == place.tokens[28:0];
    same_high <= fetched.index.tokens_address[63:35] == place.tokens[57:29];
    known_id <= kept && place.number == fetched.taken.number && place.id == id[31:AT];
    known_generation <= place.generation == fetched.taken.descriptor.index_generation;
    known_slot <= slot < place.layer_slots;
  end

  wire free = !read_valid || read_ready;
  wire known = known_id && known_generation && known_slot;
  wire ask_ahead = state == INDEX && settled && known && asked && !ahead && free;

  always_ff @(posedge clk) begin
    if (rst) begin
      state      <= IDLE;
      read_valid <= 1'b0;
      asked      <= 1'b0;
      ahead      <= 1'b0;
    end else begin
      if (read_ready) read_valid <= 1'b0;
      if (((state == INDEX || state == TOKENS) && !asked) || ask_ahead) read_valid <= 1'b1;
      unique case (state)
        IDLE: begin
          asked <= 1'b0;
          ahead <= 1'b0;
          if (taken_valid) state <= BOUNDS;
        end
        BOUNDS: begin
          state <= (id < fetched.taken.regs.indexes) ? INDEX : FETCHED;
        end
        INDEX: begin
          asked <= 1'b1;
          if (ask_ahead) ahead <= 1'b1;
          if (came) state <= LOOK;
        end
        LOOK: state <= SLOT;
        SLOT: begin
          // A beat that was asked for by a wrong place is dropped first.
          asked <= ahead;
          if (ahead && !(exists && same_low && same_high)) state <= SKIP;
          else state <= exists ? TOKENS : FETCHED;
        end
        SKIP: begin
          if (came) begin
            ahead <= 1'b0;
            state <= SLOT;
          end
        end
        TOKENS: begin
          asked <= 1'b1;
          if (came) state <= FETCHED;
        end
        FETCHED: begin
          if (fetched_ready) state <= IDLE;
        end
        default: state <= IDLE;
      endcase
    end
    came <= !rst && beat_valid && beat_ready;
    if (state == IDLE) begin
      fetched.taken  <= taken;
      fetched.index  <= '0;
      fetched.tokens <= '0;
    end
    read.beats <= 24'd1;
    if (!read_valid || read_ready) read.address <= address;
    if (state == INDEX) begin
      if (!came) fetched.index <= card_index_t'(beat);
    end
    if (state == LOOK && fetched.index.exists == '0) fetched.index <= '0;
    if (state == TOKENS) begin
      if (!came) fetched.tokens <= beat[32*slot[3:0]+:32];
    end
  end

  // The address is that of the index, then of the tokens: by their place while INDEX lasts, later by the index.
  logic [63:6] base;
  logic [31:0] at;
  always_comb begin
    base = fetched.index.tokens_address[63:6];
    at   = {20'b0, slot[15:4]};
    if (state == BOUNDS) {base, at} = {fetched.taken.regs.index_table[63:6], id};
    if (state == INDEX) base = place.tokens;
  end
  always_ff @(posedge clk) address <= {base + {26'b0, at}, 6'b0};

  // The payload, in three steps from BOUNDS on, told when nothing more is asked for by a place.
  /* verilator lint_off UNUSEDSIGNAL */  // the descriptor's fields
  descriptor_t d;
  queue_t q;
  /* verilator lint_on UNUSEDSIGNAL */
  logic [63:0] region;
  logic [31:0] region_length;
  logic [32:0] payload_end;
  logic in_region, has_queries, tells;
  assign d = fetched.taken.descriptor;
  assign q = fetched.taken.regs;
  assign tells = state == INDEX && settled && asked && !ask_ahead && free;
  always_ff @(posedge clk) begin
    region <= d.payload_region[0] ? q.region1 : q.region0;
    region_length <= d.payload_region[0] ? q.length1 : q.length0;
    payload_end <= {1'b0, d.payload_offset} + {1'b0, d.payload_length};
    early.address <= region + {26'b0, d.payload_offset, 6'b0};
    early.beats <= (d.payload_length[31:24] != '0) ? '1 : d.payload_length[23:0];
    has_queries <= d.op == OP_SCORE_SELECT && d.select_op != SELECT_LATEST;
    in_region <= payload_end <= {1'b0, region_length} && d.payload_region < q.regions;
    early_valid <= !rst && tells && !told && has_queries && in_region;
    told <= state == INDEX && (told || tells);
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
