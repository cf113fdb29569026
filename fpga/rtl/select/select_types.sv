// Commands of the selector to its lanes, and the lanes' answers. Each command is registered once in a lane, so
// all of them keep their order.
package select_types;

  import card_types::*;

  localparam int HITS = 8;  // of a hit group
  localparam int CODES = 16;  // rank codes of 16 bits that a lane looks at in a cycle, or half as many of 32
  localparam int DIGIT = 4;  // bits of a digit
  localparam int ROW = 19;

  // Rank codes: order is that of ranks, 0 stands for no entry. A code is its rank and a bias.
  localparam logic [31:0] MAX_CODE_BIAS = 32'd8191;  // group max: 4096 to 8191
  localparam logic [31:0] PLAIN_CODE_BIAS = 32'd32768;  // plain max: 1 to 65535
  localparam logic [31:0] EXP2_CODE_BIAS = 32'd1;  // sum of exp2: 1 to 2^30 + 1, codes of 32 bits
  localparam logic [31:0] RELU_CODE_BIAS = 32'h80000000;  // weighted ReLU: 2^16 to 2^32 - 2^16, codes of 32 bits

  function automatic logic [31:0] code_bias(input logic plain, input logic exp2, input logic relu);
    return relu ? RELU_CODE_BIAS : exp2 ? EXP2_CODE_BIAS : plain ? PLAIN_CODE_BIAS : MAX_CODE_BIAS;
  endfunction

  // Total of ranks in a lane's bank, asked for in pieces.
  localparam int TOTAL = 48;
  localparam int PIECE = 16;

  // A sweep over a bank: the first one makes ranks of scores and counts their first digit, the others count
  // one more digit of the ranks that equal `known` above it.
  typedef struct packed {
    logic        start;
    logic        tells;    // no sweep: what a ranked job needs of the job before it
    logic        bank;
    logic        scores;
    logic        plain;
    logic        exp2;
    logic        wide;   // codes of 32 bits
    shape_t      shape;
    shape_t      of_page;  // of the ranked job behind one with SHAPE_MAXIMA
    logic        sparse;   // codes of a ranked job: 16 a page that has fewer entries
    logic [5:0]  group_last;
    logic [3:0]  pass_last;
    logic [2:0]  digit;  // 0: the lowest four bits
    logic [31:0] known;
  } sweep_command_t;

  // Asks a lane for one figure of a bank.
  typedef struct packed {
    logic       take;        // the bank's scores are taken: its `filled` ends
    logic       bank;
    logic       candidates;  // entries that count
    logic       pages;
    logic       bin;         // entries of the next digit value, from 15 down to 1; the counters are then 0
    logic       best;        // the largest score of `query`
    logic [5:0] query;
    logic       total;       // `piece` of the total of ranks, 0 the lowest
    logic [1:0] piece;
  } read_command_t;

  // The largest score of a query over all lanes.
  typedef struct packed {
    logic        valid;
    logic [5:0]  query;
    logic [15:0] value;
  } best_write_t;

  // Collects hits of a bank: entries with rank codes above `code`, and those equal to it until `exhausted`.
  typedef struct packed {
    logic        start;
    logic        clear;      // drops what is under way
    logic        exhausted;
    logic        bank;
    shape_t      shape;
    logic        sparse;     // as in a sweep
    logic        listed;     // rows are those of the list in `list_slot`
    logic        list_slot;
    logic [23:0] first_page;
    logic        wide;       // codes of 32 bits
    logic [31:0] code;
  } collect_command_t;

  // Hits of one page of a lane, in rising order: which page, and the hits. The pages go through the merge tree; the hits
  // wait in the lane until their page has had its turn.
  typedef struct packed {
    logic           finish;  // the lane has no more; no hits
    logic [ROW-1:0] row;
    logic [4:0]     lane;
  } hit_page_t;
  typedef struct packed {
    logic [HITS-1:0]        valid;   // from the lowest bit
    logic [HITS-1:0]        equal;   // to the last rank, of valid ones
    logic [HITS-1:0][5:0]   at;      // entry of the page
    logic [HITS-1:0][15:0]  code;    // codes of 32 bits: of 4 hits, their high halves from place 4 on
  } hit_body_t;
  typedef struct packed {
    hit_page_t page;
    hit_body_t body;
  } hit_group_t;

  // A job whose last rank is known.
  typedef struct packed {
    select_job_t job;
    logic        bank;
    logic [31:0] code;   // of the last rank
    logic [23:0] need;   // entries of that rank that are taken
    logic [23:0] count;  // of all that are taken
    logic        tied;   // more than 32 others have that rank, too; where any are taken
  } decision_t;

  // An entry of a lane's list, or the end of the lists.
  typedef struct packed {
    logic           valid;
    logic           done;  // the lists of this slot are complete
    logic           twice;  // two jobs use them
    logic           slot;
    logic [4:0]     lane;
    logic [ROW-1:0] row;
    logic [63:0]    mask;
  } list_write_t;

endpackage
