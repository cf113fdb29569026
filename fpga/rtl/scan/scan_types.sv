// Messages between the modules of a lane. A job has one of 4 job slots from its arrival to its last score;
// bit 0 of it is its slot in the query store. A page has one of 32 page slots for its header, scales and mask.
package scan_types;
  import card_types::*;

  // The part of a job that stages behind the reader keep, by job slot.
  typedef struct packed {
    kind_t      kind;
    logic [1:0] merge;       // vector_log2 - 6
    logic [3:0] planes;
    logic       two_bit;
    logic       sign_stage;
    logic       page_row;
    logic       fold;
    logic [4:0] code_shift;
    logic [4:0] base_shift;
    logic [5:0] group_last;
    logic [3:0] pass_last;
    logic       relu;
    part_t      part;
    logic       listed;
    logic       maxima;
  } form_t;

  // A row of a lane's page list that is to be scanned, or a job without one.
  typedef struct packed {
    logic        none;
    logic        first;    // of the job in this lane
    logic        last;
    logic [1:0]  job;
    logic        fetch;    // the first row of its beat of the list
    logic [3:0]  element;  // of that beat
    logic [5:0]  low;      // first and last entry of the range
    logic [5:0]  high;
    logic [63:0] mask;     // of a listed job
  } row_t;

  typedef struct packed {
    logic        none;
    logic        first;
    logic        last;
    logic [1:0]  job;
    logic [4:0]  slot;
    logic [5:0]  low;
    logic [5:0]  high;
    logic [63:0] mask;
  } page_t;

  // One page and pass.
  typedef struct packed {
    logic       none;
    logic       last;       // of the job in this lane
    logic       last_pass;  // of the page
    logic       free_bank;  // tables are not used after it
    logic       bank;
    logic [1:0] job;
    logic [4:0] slot;
    logic [3:0] pass;
  } item_t;

  // Tables to be built.
  typedef struct packed {
    logic       bank;
    logic [1:0] job;
    logic [3:0] pass;
  } build_t;

  // The bytes of a record's header that scores need.
  typedef struct packed {
    logic [4:0][7:0] row_scales;
    logic [7:0]      sign_scale;
    logic [7:0]      top_octave;
    logic [7:0]      base_scale;
  } header_t;

  // Beats of a plane - 1.
  function automatic logic [4:0] last_beat_of_plane(input kind_t kind, input logic page_row, input logic [1:0] merge);
    if (kind == KIND_CODES) return merge == 2'd0 ? 5'd7 : merge == 2'd1 ? 5'd15 : 5'd31;
    if (page_row) return 5'd0;
    return merge == 2'd3 ? 5'd3 : merge == 2'd2 ? 5'd1 : 5'd0;
  endfunction

  // Segments of 64 elements of a vector - 1.
  function automatic logic [2:0] segment_last(input logic [1:0] merge);
    return merge == 2'd3 ? 3'd7 : merge == 2'd2 ? 3'd3 : {2'd0, merge[0]};
  endfunction

  // A shift to the right of a score, limited to 0..31.
  function automatic logic [4:0] limited(input logic signed [10:0] value);
    return value < 0 ? 5'd0 : value > 31 ? 5'd31 : value[4:0];
  endfunction

  // The part of a job's form that scores need (score_stage).
  typedef struct packed {
    logic       codes;
    logic       adjust;     // of two_bit or sign_stage
    logic       sign_stage;
    logic       page_row;
    logic       fold;
    logic       relu;
    part_t      part;
    logic [5:0] group_last;
    logic       listed;
    logic       maxima;
    logic       padded;     // the page's own row is vector 4
    logic [4:0] code_shift;  // of twice the dot product, by one less
    logic [5:0] down;        // code_shift + 105, less 96
  } score_shape_t;

endpackage
