// Messages between the stages of the card: jobs, scores and hits. Streams are valid/ready: a payload is
// held while valid and not ready. Widths that depend on the parameters G (queries of a pass) and S (scores a
// cycle) are no part of these types.
//
// Virtual pages: page n of an index with shift s is virtual page n + s. It lies in lane (n + s) mod CHANNELS,
// in row (n + s) / CHANNELS of the lane's page list. CHANNELS is a power of two.
package card_types;

  typedef enum logic [1:0] {
    KIND_CODES  = 2'd0,  // 64 vectors a page, a base, a scale a vector
    KIND_BOUNDS = 2'd1,  // 4 vectors of twice the dim
    KIND_MEANS  = 2'd2   // 4 vectors, or the page's own
  } kind_t;

  // The parts that y is made of. Those of a weighted sum are scanned apart, as y has 16 bits.
  typedef enum logic [1:0] {
    Y_ALL    = 2'd0,
    Y_TOKENS = 2'd1,
    Y_BASES  = 2'd2
  } part_t;

  // One position and head, one stage: what every lane reads and scores.
  typedef struct packed {
    kind_t       kind;
    logic [3:0]  vector_log2;  // elements of a stored vector: 6 to 9
    logic [3:0]  planes;       // planes that are read: 1, 2, 4 or 8
    logic        two_bit;      // codes of 2 bits: 2 * sum - 3 * (sum of the query's codes)
    logic        sign_stage;   // the first plane alone: 2 * sum - (sum of the query's codes)
    logic        page_row;     // means: the page's own row, one entry a page
    logic        fold;         // bounds: the largest of the 4 vectors, one entry a page
    logic [4:0]  code_shift;   // layout::DotShift of vectors
    logic [4:0]  base_shift;   // layout::DotShift of the base
    logic [5:0]  group_last;   // queries - 1
    logic [3:0]  pass_last;    // passes over the queries, G each, - 1
    logic        relu;         // rank codes of 32 bits instead of scores: kScoreReluDot
    part_t       part;         // tokens or bases alone: values, which go to recall_unit
    logic        listed;       // pages and entries are those of the lane's list
    logic        maxima;       // the first stage of a long scan: of each page and query the largest
                               // score is stored
    logic        none;         // not listed: the range has no page
    logic [23:0] first_page;   // not listed: virtual pages, both inclusive
    logic [23:0] last_page;
    logic [5:0]  skip;         // entries of first_page before the range
    logic [5:0]  last_entry;   // the last entry of last_page that counts
    logic [31:0] list_beat;    // page list, beats from the channel's base
    logic [31:0] block_beat;   // the block, beats from its extent
    logic [8:0]  first_beats;  // beats that are read from the block's start
    logic [8:0]  second_at;    // then these, beats from the block's start
    logic [8:0]  second_beats; // 0: none
  } scan_job_t;

  // Queries of a job, all before the job's scan may begin. Codes are padded with zeros to 64 of a segment;
  // KIND_BOUNDS has min(code, 0) of all dims, then max(code, 0).
  typedef struct packed {
    logic        last;     // the job's last beat
    logic        is_param;
    logic [5:0]  query;
    logic [2:0]  segment;  // of 64 codes
  } query_head_t;

  // The low bits of a query beat's data with is_param.
  typedef struct packed {
    logic signed [15:0] weight;
    logic signed [16:0] sum;  // of the query's codes
    logic [7:0]         shift;
    logic [15:0]        multiplier;
  } query_param_t;

  // Beside S scores, [entry of the beat][query of the pass], the lowest entry in the lowest bits. A lane sends
  // its pages in rising order, each page for pass 0, 1 ..., and each of these from entry 0 on. Of a job with `relu` a
  // beat has S / 2 rank codes, once for all passes, as pass 0.
  typedef struct packed {
    logic        value;      // for recall_unit; page_last comes once for all passes
    logic        last;       // the job's last beat of this lane
    logic        none;       // no scores: the lane has no page in this job; with last
    logic        page_last;  // the last beat of a page and pass
    logic        maxima;     // as in the scan job
    logic [3:0]  pass;
    logic [5:0]  at;         // beats of this page and pass before it
    logic [7:0]  counts;     // bit e: entry e of the beat is in the range (or listed)
  } score_head_t;

  // A job of kSelectWeightedSum: its ids and ranks are those of all entries, and a scan of values follows it.
  typedef struct packed {
    logic       on;
    logic       first;        // of its position and head
    logic       bases;        // values of bases; the job before had the tokens' values of the same elements
    logic       last;         // of its position and head; with bases
    logic [3:0] pass_last;    // of the scan of values: its queries are unit vectors
    logic [2:0] blocks_log2;  // scans of values that all elements take, by part
    logic [4:0] shift;        // s of the index
  } sum_t;

  // Entries a page; of a job with maxima pages are the entries.
  typedef enum logic [1:0] {
    SHAPE_TOKENS = 2'd0,  // 64
    SHAPE_PARTS  = 2'd1,  // 4
    SHAPE_PAGES  = 2'd2,  // 1
    SHAPE_MAXIMA = 2'd3
  } shape_t;

  typedef struct packed {
    logic        plain;      // kGroupPlainMax; without plain and exp2 kGroupMax
    logic        exp2;       // kGroupExp2Sum
    logic        relu;       // kScoreReluDot: lanes send rank codes
    logic        bounded;    // kSelectThreshold
    logic [31:0] bound;      // then the lowest rank, with exp2 the lowest share in 2^-16
    shape_t      shape;
    shape_t      of_page;    // without SHAPE_MAXIMA as `shape`, with it what the scored pages have
    logic [5:0]  group_last;
    logic [3:0]  pass_last;
    logic        listed;     // as in the scan job
    logic        to_list;    // hits become the lanes' lists; else ids go out. With SHAPE_MAXIMA whole pages
    logic        kept;       // the second stage of a long scan: the best scores and, without a bound, the candidates
                             // are those of the job before, which has SHAPE_MAXIMA
    logic        measured;   // of a long scan with a bound, or behind a first stage on signs: gives best scores and
                             // candidates alone; a list is that of the job behind it too
    logic        none;
    logic [23:0] first_page; // as in the scan job
    logic [23:0] last_page;
    logic [5:0]  skip;       // as in the scan job, for SHAPE_MAXIMA
    logic [5:0]  last_entry;
    logic [4:0]  shift;      // s of the index
    logic [23:0] k;          // at least 1
    sum_t        weigh;
  } select_job_t;

  // An entry of a lane's list, in rising order of rows.
  typedef struct packed {
    logic        last;  // the list's last entry
    logic        none;  // the list is empty; with last
    logic [18:0] row;
    logic [63:0] mask;  // entries of the page
  } list_entry_t;

  // The first answer of a select job.
  typedef struct packed {
    logic               to_list;
    logic               measured;    // no answer follows, not even an empty one
    logic [31:0]        scored;      // cycle counter when the last score was stored
    logic [31:0]        pages;       // that the lanes scored
    logic [31:0]        candidates;  // with a bound those that reach it
    logic               cut;         // more entries reach the bound than are selected
    logic [31:0]        count;       // of ids that follow; with to_list of entries in the lists
    logic signed [31:0] last_rank;   // the lowest selected one, 0 when none is selected
    sum_t               weigh;
  } hit_head_t;

  // Then, when count is not 0 and not to_list: 16 ids a beat, the last beat fewer, with the ranks.
  typedef struct packed {
    logic        last;
    logic [4:0]  count;  // 1 to 16, from the lowest bits
  } hit_beat_t;

  typedef enum logic [2:0] {
    FAULT_NONE    = 3'd0,
    FAULT_CHANNEL = 3'd2,  // numbers of CardFailure (proto/layout/card.h)
    FAULT_EXTENT  = 3'd4
  } fault_t;

endpackage
