// Made by build/release/tools/print_card_package from proto/layout; a test checks that it is current.
//
// Structs have their first field in the lowest bits, so the bits of a beat cast to them. Offsets of fields are
// bytes; those of registers are bytes of the card's AXI-Lite port.
/* verilator lint_off UNUSEDPARAM */  // a package offers more than one design needs
package mnemo_pkg;

  // Hashes of this layout (card_hash.h) and of the wire's (layout_hash.h).
  localparam logic [63:0] CARD_HASH = 64'hACDA70A583669296;
  localparam logic [63:0] LAYOUT_HASH = 64'h0E33834E792C3674;

  // Constants of card.h.
  localparam int unsigned CARD_MAGIC = 1145917005;
  localparam int unsigned CARD_MAJOR = 1;
  localparam int unsigned CARD_MINOR = 0;
  localparam int unsigned CARD_BEAT_BYTES = 64;
  localparam int unsigned CARD_QUEUES = 8;
  localparam int unsigned CARD_MAX_CHANNELS = 32;
  localparam int unsigned CARD_MIN_DIM = 64;
  localparam int unsigned CARD_MAX_DIM = 256;
  localparam int unsigned CARD_LIST_ROWS_OF_BEAT = 16;
  localparam int unsigned CARD_MAX_REGIONS = 2;

  // Registers, byte offsets.
  localparam logic [12:0] CARD_REG_INTERRUPT_GLOBAL = 13'd4;
  localparam logic [12:0] CARD_REG_INTERRUPT_ENABLE = 13'd8;
  localparam logic [12:0] CARD_REG_INTERRUPT_STATUS = 13'd12;
  localparam logic [12:0] CARD_REG_MAGIC = 13'd16;
  localparam logic [12:0] CARD_REG_VERSION = 13'd20;
  localparam logic [12:0] CARD_REG_CARD_HASH = 13'd24;
  localparam logic [12:0] CARD_REG_LAYOUT_HASH = 13'd32;
  localparam logic [12:0] CARD_REG_SHAPE = 13'd40;
  localparam logic [12:0] CARD_REG_BANK_WORDS = 13'd44;
  localparam logic [12:0] CARD_REG_SCORE_OPS = 13'd48;
  localparam logic [12:0] CARD_REG_FORMATS = 13'd52;
  localparam logic [12:0] CARD_REG_DIMS = 13'd56;
  localparam logic [12:0] CARD_REG_MAX_GROUP = 13'd60;
  localparam logic [12:0] CARD_REG_CONTROL = 13'd64;
  localparam logic [12:0] CARD_REG_STATE = 13'd68;
  localparam logic [12:0] CARD_REG_WATCHDOG = 13'd72;
  localparam logic [12:0] CARD_REG_FAILURE = 13'd76;
  localparam logic [12:0] CARD_REG_PERIOD = 13'd80;
  localparam logic [12:0] CARD_REG_AWAIT = 13'd84;
  localparam logic [12:0] CARD_REG_CHANNELS = 13'd256;
  localparam logic [12:0] CARD_REG_COUNTERS = 13'd512;
  localparam logic [12:0] CARD_REG_QUEUES = 13'd1024;
  localparam logic [12:0] CARD_QUEUE_BYTES = 13'd128;
  localparam logic [12:0] CARD_REG_LANES = 13'd2048;
  localparam logic [12:0] CARD_LANE_BYTES = 13'd64;
  localparam logic [12:0] CARD_REGISTER_BYTES = 13'd4096;

  // Bits of the registers Control and State; numbers of Failure; bits of interrupts.
  localparam logic [31:0] CARD_CONTROL_RUN = 32'd1;
  localparam logic [31:0] CARD_CONTROL_QUIESCE = 32'd2;
  localparam logic [31:0] CARD_CONTROL_RESET = 32'd4;
  localparam logic [31:0] CARD_STATE_IDLE = 32'd1;
  localparam logic [31:0] CARD_STATE_QUIESCED = 32'd2;
  localparam logic [31:0] CARD_STATE_FAILED = 32'd4;
  localparam logic [7:0] CARD_FAILURE_NONE = 8'd0;
  localparam logic [7:0] CARD_FAILURE_WATCHDOG = 8'd1;
  localparam logic [7:0] CARD_FAILURE_CHANNEL = 8'd2;
  localparam logic [7:0] CARD_FAILURE_HOST = 8'd3;
  localparam logic [7:0] CARD_FAILURE_EXTENT = 8'd4;
  localparam logic [31:0] CARD_INTERRUPT_COMPLETION = 32'd1;
  localparam logic [31:0] CARD_INTERRUPT_FAILURE = 32'd2;

  // Registers of a queue, byte offsets within the queue.
  localparam logic [6:0] CARD_QUEUE_ENABLE = 7'd0;
  localparam logic [6:0] CARD_QUEUE_HEAD = 7'd4;
  localparam logic [6:0] CARD_QUEUE_RING = 7'd8;
  localparam logic [6:0] CARD_QUEUE_COMPLETIONS = 7'd16;
  localparam logic [6:0] CARD_QUEUE_SLOTS = 7'd24;
  localparam logic [6:0] CARD_QUEUE_POLL = 7'd28;
  localparam logic [6:0] CARD_QUEUE_REGION0 = 7'd32;
  localparam logic [6:0] CARD_QUEUE_REGION1 = 7'd40;
  localparam logic [6:0] CARD_QUEUE_LENGTH0 = 7'd48;
  localparam logic [6:0] CARD_QUEUE_LENGTH1 = 7'd52;
  localparam logic [6:0] CARD_QUEUE_REGIONS = 7'd56;
  localparam logic [6:0] CARD_QUEUE_SEQ = 7'd60;
  localparam logic [6:0] CARD_QUEUE_TABLE = 7'd64;
  localparam logic [6:0] CARD_QUEUE_INDEXES = 7'd72;
  localparam logic [6:0] CARD_QUEUE_OPS = 7'd76;
  localparam logic [6:0] CARD_QUEUE_FORMATS = 7'd80;
  localparam logic [6:0] CARD_QUEUE_SCORE_OPS = 7'd84;
  localparam logic [6:0] CARD_QUEUE_MAX_GROUP = 7'd88;
  localparam logic [6:0] CARD_QUEUE_MAX_K = 7'd92;
  localparam logic [31:0] CARD_QUEUE_ENABLED = 32'd1;
  localparam logic [31:0] CARD_QUEUE_STOPPED = 32'd2;

  // Counters, in the order of their registers.
  localparam int unsigned CARD_CYCLES_TOTAL = 0;
  localparam int unsigned CARD_CYCLES_BUSY = 1;
  localparam int unsigned CARD_DESCRIPTORS = 2;
  localparam int unsigned CARD_REFUSED = 3;
  localparam int unsigned CARD_JOBS = 4;
  localparam int unsigned CARD_HOST_BYTES_READ = 5;
  localparam int unsigned CARD_HOST_BYTES_WRITTEN = 6;
  localparam int unsigned CARD_STALL_RESULTS = 7;
  localparam int unsigned CARD_QUEUE_DEPTH = 8;
  localparam int unsigned CARD_COUNTERS = 9;
  localparam int unsigned CARD_LANE_BEATS = 0;
  localparam int unsigned CARD_LANE_STALL_MEMORY = 1;
  localparam int unsigned CARD_LANE_STALL_TABLES = 2;
  localparam int unsigned CARD_LANE_STALL_SCORERS = 3;
  localparam int unsigned CARD_LANE_STALL_BANK = 4;
  localparam int unsigned CARD_LANE_BUSY = 5;
  localparam int unsigned CARD_LANE_COUNTERS = 6;

  // Constants of the wire.
  localparam int unsigned UNIT_BYTES = 64;
  localparam int unsigned PAGE_TOKENS = 64;
  localparam int unsigned PART_TOKENS = 16;
  localparam int unsigned PAGE_PARTS = 4;
  localparam int unsigned MIN_DIM = 16;
  localparam int unsigned MAX_DIM = 512;
  localparam int unsigned MAX_GROUP = 64;
  localparam int unsigned SCALE_BIAS = 128;
  localparam int unsigned RANK_BINS = 4096;
  localparam int unsigned RELU_RANK_SHIFT = 5;
  localparam logic signed [15:0] RANK_FLOOR = -16'sd4095;
  localparam logic signed [15:0] PLAIN_RANK_FLOOR = -16'sd32767;
  localparam logic [7:0][7:0] SCALE_MANTISSA = {8'd235, 8'd215, 8'd197, 8'd181, 8'd166, 8'd152, 8'd140, 8'd128};

  // Operations.
  localparam logic [7:0] OP_CREATE = 8'd1;
  localparam logic [7:0] OP_APPEND = 8'd2;
  localparam logic [7:0] OP_FORK = 8'd3;
  localparam logic [7:0] OP_TRUNCATE = 8'd4;
  localparam logic [7:0] OP_FREE = 8'd5;
  localparam logic [7:0] OP_KV_STORE = 8'd6;
  localparam logic [7:0] OP_SCORE_SELECT = 8'd16;
  localparam logic [7:0] OP_GATHER = 8'd17;
  localparam logic [7:0] OP_SCORE_GATHER = 8'd18;
  localparam logic [7:0] SCORE_DOT = 8'd1;
  localparam logic [7:0] SCORE_RELU_DOT = 8'd2;
  localparam logic [7:0] SCORE_PAGE_BOUND = 8'd3;
  localparam logic [7:0] SCORE_BLOCK_MEAN = 8'd4;
  localparam logic [7:0] GROUP_NONE = 8'd0;
  localparam logic [7:0] GROUP_MAX = 8'd1;
  localparam logic [7:0] GROUP_EXP2_SUM = 8'd2;
  localparam logic [7:0] GROUP_PLAIN_MAX = 8'd3;
  localparam logic [7:0] SELECT_TOP_K = 8'd1;
  localparam logic [7:0] SELECT_THRESHOLD = 8'd2;
  localparam logic [7:0] SELECT_WEIGHTED_SUM = 8'd3;
  localparam logic [7:0] SELECT_LATEST = 8'd4;

  // Formats and flags of descriptors.
  localparam logic [7:0] FORMAT_CODES2 = 8'd1;
  localparam logic [7:0] FORMAT_CODES4 = 8'd2;
  localparam logic [7:0] FORMAT_CODES8 = 8'd3;
  localparam logic [7:0] FORMAT_BOUNDS = 8'd4;
  localparam logic [7:0] FORMAT_MEANS = 8'd5;
  localparam logic [7:0] FORMAT_F16 = 8'd16;
  localparam logic [7:0] FORMAT_BF16 = 8'd17;
  localparam logic [7:0] FORMAT_F32 = 8'd18;
  localparam logic [7:0] FORMAT_SCALED_KEYS = 8'd19;
  localparam logic [7:0] FORMAT_SCALED_BYTES = 8'd20;
  localparam logic [7:0] FLAG_BY_RANK = 8'd1;
  localparam logic [7:0] FLAG_RANKS = 8'd2;
  localparam logic [7:0] FLAG_PAGES64 = 8'd4;
  localparam logic [7:0] FLAGS_KNOWN = 8'd7;

  // Statuses of completions.
  localparam logic [15:0] STATUS_OK = 16'd0;
  localparam logic [15:0] STATUS_BAD_FIELD = 16'd1;
  localparam logic [15:0] STATUS_BAD_SEQUENCE = 16'd2;
  localparam logic [15:0] STATUS_STALE_EPOCH = 16'd3;
  localparam logic [15:0] STATUS_UNKNOWN_INDEX = 16'd4;
  localparam logic [15:0] STATUS_STALE_GENERATION = 16'd5;
  localparam logic [15:0] STATUS_UNSUPPORTED = 16'd6;
  localparam logic [15:0] STATUS_BAD_REGION = 16'd7;
  localparam logic [15:0] STATUS_BAD_PAYLOAD = 16'd8;
  localparam logic [15:0] STATUS_FULL = 16'd9;
  localparam logic [15:0] STATUS_DRAINING = 16'd10;
  localparam logic [15:0] STATUS_DEVICE_FAILED = 16'd11;
  localparam logic [15:0] NO_DETAIL = 16'd65535;
  localparam logic [31:0] ENERGY_UNKNOWN = 32'd4294967295;
  localparam logic [31:0] RESULT_CUT = 32'd1;

  // Structs of the wire and of the index table.

  typedef struct packed {
    logic [31:0] result_length;
    logic [31:0] result_offset;
    logic [31:0] payload_length;
    logic [31:0] payload_offset;
    logic [15:0] result_region;
    logic [15:0] payload_region;
    logic signed [31:0] threshold;
    logic [31:0] k1;
    logic [31:0] k;
    logic [31:0] end_token;
    logic [31:0] begin_token;
    logic [7:0] format;
    logic [7:0] select_op;
    logic [7:0] group_op;
    logic [7:0] score_op;
    logic [7:0] queries;
    logic [7:0] group;
    logic [7:0] heads;
    logic [7:0] first_head;
    logic [15:0] layer_slot;
    logic [15:0] index_generation;
    logic [31:0] index_id;
    logic [31:0] seq;
    logic [15:0] epoch;
    logic [7:0] flags;
    logic [7:0] op;
  } descriptor_t;

  typedef struct packed {
    logic [31:0] seq;
    logic [15:0] detail;
    logic [15:0] status;
    logic [31:0] reserved;
    logic [31:0] energy_uj;
    logic [63:0] bytes_written;
    logic [63:0] bytes_read;
    logic [31:0] gather_ns;
    logic [31:0] select_ns;
    logic [31:0] score_ns;
    logic [31:0] prepare_ns;
    logic [31:0] queue_ns;
    logic [31:0] watermark;
    logic [31:0] count;
    logic [31:0] index_id;
  } completion_t;

  typedef struct packed {
    logic [255:0] reserved_32;
    logic [63:0] tokens_address;
    logic [31:0] block_beats;
    logic [31:0] list_beat;
    logic [31:0] max_tokens;
    logic [7:0] kv_format;
    logic [7:0] shift;
    logic [15:0] dim;
    logic [15:0] heads;
    logic [15:0] layer_slots;
    logic [7:0] record_format;
    logic [7:0] exists;
    logic [15:0] generation;
  } card_index_t;

  typedef struct packed {
    logic [15:0] reserved_6;
    logic signed [15:0] weight;
    logic [7:0] reserved_3;
    logic [7:0] shift;
    logic [15:0] multiplier;
  } query_param_wire_t;

  typedef struct packed {
    logic [31:0] flags;
    logic signed [31:0] last_rank;
    logic [31:0] candidates;
    logic [31:0] count;
  } result_header_t;

  typedef struct packed {
    logic [23:0] reserved_13;
    logic [4:0][7:0] row_scales;
    logic [23:0] reserved_5;
    logic [7:0] dim_log2;
    logic [7:0] format;
    logic [7:0] sign_scale;
    logic [7:0] top_octave;
    logic [7:0] base_scale;
  } record_header_t;

  // Byte offsets of fields: details of refused descriptors, places in rings.
  localparam logic [15:0] DESCRIPTOR_AT_OP = 16'd0;
  localparam logic [15:0] DESCRIPTOR_AT_FLAGS = 16'd1;
  localparam logic [15:0] DESCRIPTOR_AT_EPOCH = 16'd2;
  localparam logic [15:0] DESCRIPTOR_AT_SEQ = 16'd4;
  localparam logic [15:0] DESCRIPTOR_AT_INDEX_ID = 16'd8;
  localparam logic [15:0] DESCRIPTOR_AT_INDEX_GENERATION = 16'd12;
  localparam logic [15:0] DESCRIPTOR_AT_LAYER_SLOT = 16'd14;
  localparam logic [15:0] DESCRIPTOR_AT_FIRST_HEAD = 16'd16;
  localparam logic [15:0] DESCRIPTOR_AT_HEADS = 16'd17;
  localparam logic [15:0] DESCRIPTOR_AT_GROUP = 16'd18;
  localparam logic [15:0] DESCRIPTOR_AT_QUERIES = 16'd19;
  localparam logic [15:0] DESCRIPTOR_AT_SCORE_OP = 16'd20;
  localparam logic [15:0] DESCRIPTOR_AT_GROUP_OP = 16'd21;
  localparam logic [15:0] DESCRIPTOR_AT_SELECT_OP = 16'd22;
  localparam logic [15:0] DESCRIPTOR_AT_FORMAT = 16'd23;
  localparam logic [15:0] DESCRIPTOR_AT_BEGIN_TOKEN = 16'd24;
  localparam logic [15:0] DESCRIPTOR_AT_END_TOKEN = 16'd28;
  localparam logic [15:0] DESCRIPTOR_AT_K = 16'd32;
  localparam logic [15:0] DESCRIPTOR_AT_K1 = 16'd36;
  localparam logic [15:0] DESCRIPTOR_AT_THRESHOLD = 16'd40;
  localparam logic [15:0] DESCRIPTOR_AT_PAYLOAD_REGION = 16'd44;
  localparam logic [15:0] DESCRIPTOR_AT_RESULT_REGION = 16'd46;
  localparam logic [15:0] DESCRIPTOR_AT_PAYLOAD_OFFSET = 16'd48;
  localparam logic [15:0] DESCRIPTOR_AT_PAYLOAD_LENGTH = 16'd52;
  localparam logic [15:0] DESCRIPTOR_AT_RESULT_OFFSET = 16'd56;
  localparam logic [15:0] DESCRIPTOR_AT_RESULT_LENGTH = 16'd60;
  localparam logic [15:0] COMPLETION_AT_INDEX_ID = 16'd0;
  localparam logic [15:0] COMPLETION_AT_COUNT = 16'd4;
  localparam logic [15:0] COMPLETION_AT_WATERMARK = 16'd8;
  localparam logic [15:0] COMPLETION_AT_QUEUE_NS = 16'd12;
  localparam logic [15:0] COMPLETION_AT_PREPARE_NS = 16'd16;
  localparam logic [15:0] COMPLETION_AT_SCORE_NS = 16'd20;
  localparam logic [15:0] COMPLETION_AT_SELECT_NS = 16'd24;
  localparam logic [15:0] COMPLETION_AT_GATHER_NS = 16'd28;
  localparam logic [15:0] COMPLETION_AT_BYTES_READ = 16'd32;
  localparam logic [15:0] COMPLETION_AT_BYTES_WRITTEN = 16'd40;
  localparam logic [15:0] COMPLETION_AT_ENERGY_UJ = 16'd48;
  localparam logic [15:0] COMPLETION_AT_RESERVED = 16'd52;
  localparam logic [15:0] COMPLETION_AT_STATUS = 16'd56;
  localparam logic [15:0] COMPLETION_AT_DETAIL = 16'd58;
  localparam logic [15:0] COMPLETION_AT_SEQ = 16'd60;
  localparam logic [15:0] RING_AT_MAGIC = 16'd0;
  localparam logic [15:0] RING_AT_ABI_MAJOR = 16'd8;
  localparam logic [15:0] RING_AT_ABI_MINOR = 16'd10;
  localparam logic [15:0] RING_AT_KIND = 16'd12;
  localparam logic [15:0] RING_AT_EPOCH = 16'd14;
  localparam logic [15:0] RING_AT_SLOTS = 16'd16;
  localparam logic [15:0] RING_AT_SLOT_BYTES = 16'd20;
  localparam logic [15:0] RING_AT_SLOTS_OFFSET_BYTES = 16'd24;
  localparam logic [15:0] RING_AT_HEAD = 16'd64;
  localparam logic [15:0] RING_AT_TAIL = 16'd128;
  localparam logic [15:0] RING_AT_ASLEEP = 16'd192;
  localparam logic [15:0] RING_AT_CLOSED = 16'd196;
  localparam int unsigned RING_HEADER_BYTES = 256;

  // A resident block (CardBlockOf of card.h), in beats; `dim` is padded.
  typedef struct packed {
    logic [9:0] beats;
    logic [9:0] page_row;
    logic [9:0] further;
    logic [9:0] scales;
    logic [9:0] first;
    logic [9:0] base;
    logic [9:0] plane_beats;
    logic [9:0] planes;
    logic [9:0] vectors;
    logic [9:0] vector_elements;
    logic [9:0] dim;
  } card_block_t;

  function automatic card_block_t card_block(input logic [7:0] format, input logic [3:0] dim_log2);
    unique case ({format, dim_log2})
      {8'd1, 4'd4}: return card_block_t'{10'd19, 10'd19, 10'd11, 10'd10, 10'd2, 10'd1, 10'd8, 10'd2, 10'd64, 10'd64, 10'd64};
      {8'd1, 4'd5}: return card_block_t'{10'd19, 10'd19, 10'd11, 10'd10, 10'd2, 10'd1, 10'd8, 10'd2, 10'd64, 10'd64, 10'd64};
      {8'd1, 4'd6}: return card_block_t'{10'd19, 10'd19, 10'd11, 10'd10, 10'd2, 10'd1, 10'd8, 10'd2, 10'd64, 10'd64, 10'd64};
      {8'd1, 4'd7}: return card_block_t'{10'd36, 10'd36, 10'd20, 10'd19, 10'd3, 10'd1, 10'd16, 10'd2, 10'd64, 10'd128, 10'd128};
      {8'd1, 4'd8}: return card_block_t'{10'd70, 10'd70, 10'd38, 10'd37, 10'd5, 10'd1, 10'd32, 10'd2, 10'd64, 10'd256, 10'd256};
      {8'd2, 4'd4}: return card_block_t'{10'd35, 10'd35, 10'd11, 10'd10, 10'd2, 10'd1, 10'd8, 10'd4, 10'd64, 10'd64, 10'd64};
      {8'd2, 4'd5}: return card_block_t'{10'd35, 10'd35, 10'd11, 10'd10, 10'd2, 10'd1, 10'd8, 10'd4, 10'd64, 10'd64, 10'd64};
      {8'd2, 4'd6}: return card_block_t'{10'd35, 10'd35, 10'd11, 10'd10, 10'd2, 10'd1, 10'd8, 10'd4, 10'd64, 10'd64, 10'd64};
      {8'd2, 4'd7}: return card_block_t'{10'd68, 10'd68, 10'd20, 10'd19, 10'd3, 10'd1, 10'd16, 10'd4, 10'd64, 10'd128, 10'd128};
      {8'd2, 4'd8}: return card_block_t'{10'd134, 10'd134, 10'd38, 10'd37, 10'd5, 10'd1, 10'd32, 10'd4, 10'd64, 10'd256, 10'd256};
      {8'd3, 4'd4}: return card_block_t'{10'd67, 10'd67, 10'd11, 10'd10, 10'd2, 10'd1, 10'd8, 10'd8, 10'd64, 10'd64, 10'd64};
      {8'd3, 4'd5}: return card_block_t'{10'd67, 10'd67, 10'd11, 10'd10, 10'd2, 10'd1, 10'd8, 10'd8, 10'd64, 10'd64, 10'd64};
      {8'd3, 4'd6}: return card_block_t'{10'd67, 10'd67, 10'd11, 10'd10, 10'd2, 10'd1, 10'd8, 10'd8, 10'd64, 10'd64, 10'd64};
      {8'd3, 4'd7}: return card_block_t'{10'd132, 10'd132, 10'd20, 10'd19, 10'd3, 10'd1, 10'd16, 10'd8, 10'd64, 10'd128, 10'd128};
      {8'd3, 4'd8}: return card_block_t'{10'd262, 10'd262, 10'd38, 10'd37, 10'd5, 10'd1, 10'd32, 10'd8, 10'd64, 10'd256, 10'd256};
      {8'd4, 4'd4}: return card_block_t'{10'd9, 10'd9, 10'd2, 10'd2, 10'd1, 10'd1, 10'd1, 10'd8, 10'd4, 10'd128, 10'd64};
      {8'd4, 4'd5}: return card_block_t'{10'd9, 10'd9, 10'd2, 10'd2, 10'd1, 10'd1, 10'd1, 10'd8, 10'd4, 10'd128, 10'd64};
      {8'd4, 4'd6}: return card_block_t'{10'd9, 10'd9, 10'd2, 10'd2, 10'd1, 10'd1, 10'd1, 10'd8, 10'd4, 10'd128, 10'd64};
      {8'd4, 4'd7}: return card_block_t'{10'd17, 10'd17, 10'd3, 10'd3, 10'd1, 10'd1, 10'd2, 10'd8, 10'd4, 10'd256, 10'd128};
      {8'd4, 4'd8}: return card_block_t'{10'd33, 10'd33, 10'd5, 10'd5, 10'd1, 10'd1, 10'd4, 10'd8, 10'd4, 10'd512, 10'd256};
      {8'd5, 4'd4}: return card_block_t'{10'd9, 10'd9, 10'd2, 10'd2, 10'd1, 10'd1, 10'd1, 10'd8, 10'd4, 10'd64, 10'd64};
      {8'd5, 4'd5}: return card_block_t'{10'd9, 10'd9, 10'd2, 10'd2, 10'd1, 10'd1, 10'd1, 10'd8, 10'd4, 10'd64, 10'd64};
      {8'd5, 4'd6}: return card_block_t'{10'd9, 10'd9, 10'd2, 10'd2, 10'd1, 10'd1, 10'd1, 10'd8, 10'd4, 10'd64, 10'd64};
      {8'd5, 4'd7}: return card_block_t'{10'd17, 10'd9, 10'd2, 10'd2, 10'd1, 10'd1, 10'd1, 10'd8, 10'd4, 10'd128, 10'd128};
      {8'd5, 4'd8}: return card_block_t'{10'd25, 10'd17, 10'd3, 10'd3, 10'd1, 10'd1, 10'd2, 10'd8, 10'd4, 10'd256, 10'd256};
      default: return card_block_t'('0);
    endcase
  endfunction

endpackage
/* verilator lint_on UNUSEDPARAM */
