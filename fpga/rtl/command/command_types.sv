// Messages between the parts of the command processor.
package command_types;
  import mnemo_pkg::*;

  // The registers of a queue (CardQueueRegister), the first in the lowest bits, so that its 24 words cast to it.
  // control_regs keeps 0 in the bits that the card does not use: the low 6 of an address among them.
  typedef struct packed {
    logic [31:0] max_k;
    logic [15:0] max_queries;
    logic [15:0] max_group;
    logic [7:0]  cascade;
    logic [7:0]  select_ops;
    logic [7:0]  group_ops;
    logic [7:0]  score_ops;
    logic [31:0] formats;
    logic [31:0] ops;
    logic [31:0] indexes;
    logic [63:0] index_table;
    logic [31:0] seq;
    logic [15:0] epoch;
    logic [15:0] regions;
    logic [31:0] length1;
    logic [31:0] length0;
    logic [63:0] region1;
    logic [63:0] region0;
    logic [31:0] poll;
    logic [31:0] slots;
    logic [63:0] completions;
    logic [63:0] ring;
    logic [31:0] head;
    logic [31:0] enable;
  } queue_t;

  // A descriptor as copied from its ring.
  typedef struct packed {
    logic [31:0] cycle;     // when its fetch began
    logic [31:0] next_seq;  // that the ring's next descriptor had to have
    logic [2:0]  number;    // of the queue
    queue_t      regs;    // of the queue
    descriptor_t descriptor;
  } taken_t;

  // With the index that it names: exists is 0 when there is none, or its id is out of bounds.
  typedef struct packed {
    logic [31:0] tokens;  // of the slot, 0 when the slot is out of bounds
    card_index_t index;
    taken_t      taken;
  } fetched_t;

  // Sizes of a descriptor that is served, in units of 64 bytes (descriptor_sizes), and how it is scanned.
  typedef struct packed {
    logic [23:0] result_block;
    logic [23:0] payload_block;
    logic [15:0] blocks;        // positions times heads
    logic        long_scan;     // more scores than a bank holds: two jobs, by the largest scores of pages
  } block_units_t;

  // One load of queries: a payload block.
  typedef struct packed {
    logic [63:0] address;
    logic [23:0] beats;
    logic [5:0]  group_last;
    logic [3:0]  dim_log2;  // 4 to 8
    logic        bounds;
    logic        values;    // unit queries for a scan of values, which are not read
    logic [7:0]  element;   // of the first one
  } load_t;

  // A descriptor for the result writer: refused when status is not STATUS_OK, then only number, status, detail,
  // seq and index_id have a meaning.
  typedef struct packed {
    logic [2:0]  number;
    logic [15:0] status;
    logic [15:0] detail;
    logic [31:0] seq;
    logic [31:0] index_id;
    logic [31:0] watermark;
    logic [31:0] taken_at;  // cycles
    logic [31:0] started_at;
    logic [15:0] blocks;    // positions times heads
    logic [63:0] address;   // of the first result block
    logic [23:0] block_units;
    logic [23:0] k;
    logic        ranks;
    logic        latest;  // no jobs: the last entries of the range
    logic [31:0] entries;       // of the range
    logic [31:0] latest_count;
    logic [31:0] latest_first;
    logic [9:0]  first_beats;   // that a page takes: of a stage that makes lists, 0 without one
    logic [9:0]  second_beats;  // full stage
  } context_t;

  // A descriptor whose results are on their way to host memory.
  typedef struct packed {
    logic [2:0]  number;
    logic [15:0] status;
    logic [15:0] detail;
    logic [31:0] seq;
    logic [31:0] index_id;
    logic [31:0] watermark;
    logic [31:0] count;
    logic [31:0] queue_cycles;
    logic [31:0] score_cycles;
    logic [31:0] scored_at;  // the select time runs from here until the results are in host memory
    logic [63:0] bytes_read;
    logic [63:0] bytes_written;
  } finished_t;

  // One beat or less to host memory; a strobe is that of a word of 4 bytes.
  typedef struct packed {
    logic [63:0]  address;  // aligned to 64
    logic [15:0]  words;
    logic [511:0] data;
  } host_write_t;

  typedef struct packed {
    logic [63:0] address;  // aligned to 64
    logic [23:0] beats;    // at least 1
  } host_read_t;

endpackage
