// Commands of the selector to its lanes, and the lanes' answers. Each command is registered once in a lane, so
// all of them keep their order.
package select_types;

  import card_types::*;

  localparam int HITS = 8;  // of a hit group
  localparam int CODES = 16;  // rank codes that a lane looks at in a cycle
  localparam int DIGIT = 4;  // bits of a digit
  localparam int ROW = 19;

  // Rank codes: order is that of ranks, 0 stands for no entry.
  localparam logic [15:0] MAX_CODE_BIAS = 16'd8191;  // group max: 4096 to 8191
  localparam logic [15:0] PLAIN_CODE_BIAS = 16'd32768;  // plain max: 1 to 65535

  // A sweep over a bank: the first one makes ranks of scores and counts their first digit, the others count
  // one more digit of the ranks that equal `known` above it.
  typedef struct packed {
    logic        start;
    logic        bank;
    logic        scores;
    logic        plain;
    shape_t      shape;
    logic [5:0]  group_last;
    logic [3:0]  pass_last;
    logic [1:0]  digit;  // 3: the top four bits
    logic [15:0] known;
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
    logic        listed;     // rows are those of the list in `list_slot`
    logic        list_slot;
    logic [23:0] first_page;
    logic [15:0] code;
  } collect_command_t;

  // Hits of one page of a lane, in rising order.
  typedef struct packed {
    logic                   finish;  // the lane has no more; no hits
    logic [ROW-1:0]         row;
    logic [4:0]             lane;
    logic [HITS-1:0]        valid;   // from the lowest bit
    logic [HITS-1:0]        equal;   // to the last rank
    logic [HITS-1:0][5:0]   at;      // entry of the page
    logic [HITS-1:0][15:0]  code;
  } hit_group_t;

  // A job whose last rank is known.
  typedef struct packed {
    select_job_t job;
    logic        bank;
    logic [15:0] code;   // of the last rank
    logic [23:0] need;   // entries of that rank that are taken
    logic [23:0] count;  // of all that are taken
  } decision_t;

  // An entry of a lane's list, or the end of the lists.
  typedef struct packed {
    logic           valid;
    logic           done;  // the lists of this slot are complete
    logic           slot;
    logic [4:0]     lane;
    logic [ROW-1:0] row;
    logic [63:0]    mask;
  } list_write_t;

endpackage
