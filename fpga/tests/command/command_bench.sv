// The command processor with the fields of its jobs and hits as ports of their own.
module command_bench
  import mnemo_pkg::*;
  import card_types::*;
#(
    parameter int CHANNELS = 2,
    parameter int G = 4,
    parameter int S = 16,
    parameter int BANK_WORDS = 64,
    parameter int N_QUEUES = 8
) (
    input  logic         clk,
    input  logic         rst,
    input  logic         s_awvalid,
    output logic         s_awready,
    input  logic [ 12:0] s_awaddr,
    input  logic         s_wvalid,
    output logic         s_wready,
    input  logic [ 31:0] s_wdata,
    input  logic [  3:0] s_wstrb,
    output logic         s_bvalid,
    input  logic         s_bready,
    output logic [  1:0] s_bresp,
    input  logic         s_arvalid,
    output logic         s_arready,
    input  logic [ 12:0] s_araddr,
    output logic         s_rvalid,
    input  logic         s_rready,
    output logic [ 31:0] s_rdata,
    output logic [  1:0] s_rresp,
    output logic         irq,
    output logic         ar_valid,
    input  logic         ar_ready,
    output logic [ 63:0] ar_addr,
    output logic [  7:0] ar_len,
    input  logic         r_valid,
    output logic         r_ready,
    input  logic [511:0] r_data,
    input  logic [  1:0] r_resp,
    input  logic         r_last,
    output logic         aw_valid,
    input  logic         aw_ready,
    output logic [ 63:0] aw_addr,
    output logic [  7:0] aw_len,
    output logic         w_valid,
    input  logic         w_ready,
    output logic [511:0] w_data,
    output logic [ 63:0] w_strb,
    output logic         w_last,
    input  logic         b_valid,
    output logic         b_ready,
    input  logic [  1:0] b_resp,

    output logic                  scan_valid,
    input  logic                  scan_ready,
    output logic           [31:0] scan_kind,
    output logic           [31:0] scan_vector_log2,
    output logic           [31:0] scan_planes,
    output logic                  scan_two_bit,
    output logic                  scan_sign_stage,
    output logic                  scan_page_row,
    output logic                  scan_fold,
    output logic           [31:0] scan_code_shift,
    output logic           [31:0] scan_base_shift,
    output logic                  scan_relu,
    output logic           [31:0] scan_group_last,
    output logic           [31:0] scan_pass_last,
    output logic                  scan_listed,
    output logic                  scan_maxima,
    output logic                  scan_none,
    output logic           [31:0] scan_first_page,
    output logic           [31:0] scan_last_page,
    output logic           [31:0] scan_skip,
    output logic           [31:0] scan_last_entry,
    output logic           [31:0] scan_list_beat,
    output logic           [31:0] scan_block_beat,
    output logic           [31:0] scan_first_beats,
    output logic           [31:0] scan_second_at,
    output logic           [31:0] scan_second_beats,

    output logic         query_valid,
    input  logic         query_ready,
    output logic         query_last,
    output logic         query_is_param,
    output logic [ 31:0] query_number,
    output logic [ 31:0] query_segment,
    output logic [511:0] query_data,

    output logic        select_valid,
    input  logic        select_ready,
    output logic        select_plain,
    output logic        select_exp2,
    output logic        select_relu,
    output logic        select_bounded,
    output logic [31:0] select_bound,
    output logic [31:0] select_shape,
    output logic [31:0] select_of_page,
    output logic [31:0] select_group_last,
    output logic [31:0] select_pass_last,
    output logic        select_listed,
    output logic        select_to_list,
    output logic        select_measured,
    output logic        select_kept,
    output logic        select_none,
    output logic [31:0] select_first_page,
    output logic [31:0] select_last_page,
    output logic [31:0] select_skip,
    output logic [31:0] select_last_entry,
    output logic [31:0] select_shift,
    output logic [31:0] select_k,

    input  logic        head_valid,
    output logic        head_ready,
    input  logic        head_to_list,
    input  logic        head_measured,
    input  logic [31:0] head_scored,
    input  logic [31:0] head_pages,
    input  logic [31:0] head_candidates,
    input  logic        head_cut,
    input  logic [31:0] head_count,
    input  logic [31:0] head_last_rank,

    input  logic         hit_valid,
    output logic         hit_ready,
    input  logic         hit_last,
    input  logic [  4:0] hit_count,
    input  logic [511:0] hit_ids,
    input  logic [511:0] hit_ranks,

    output logic                      core_rst,
    output logic                      stop,
    input  logic [CHANNELS-1:0]       open,
    input  logic [CHANNELS-1:0][ 2:0] fault,
    input  logic [CHANNELS-1:0]       ev_beat,
    input  logic [CHANNELS-1:0]       ev_stall_memory,
    input  logic [CHANNELS-1:0]       ev_stall_tables,
    input  logic [CHANNELS-1:0]       ev_stall_scorers,
    input  logic [CHANNELS-1:0]       ev_stall_bank,
    input  logic [CHANNELS-1:0]       ev_busy,
    output logic [        31:0]       base_beat0,
    output logic [        31:0]       base_beat1,
    output logic [CHANNELS-1:0][31:0] length_beats,
    output logic [        31:0]       cycle
);
  // No descriptor here asks for a weighted sum.
  logic octave_valid, octave_ready;
  logic [4:0] octave;
  assign octave_valid = 1'b0;
  assign octave = '0;

  scan_job_t scan_job;
  select_job_t select_job;
  query_head_t query_head;
  hit_head_t head;
  hit_beat_t hit_beat;
  fault_t [CHANNELS-1:0] faults;
  logic [CHANNELS-1:0][33:0] base_beat;

  assign scan_kind         = 32'(scan_job.kind);
  assign scan_vector_log2  = 32'(scan_job.vector_log2);
  assign scan_planes       = 32'(scan_job.planes);
  assign scan_two_bit      = scan_job.two_bit;
  assign scan_sign_stage   = scan_job.sign_stage;
  assign scan_page_row     = scan_job.page_row;
  assign scan_fold         = scan_job.fold;
  assign scan_code_shift   = 32'(scan_job.code_shift);
  assign scan_base_shift   = 32'(scan_job.base_shift);
  assign scan_relu         = scan_job.relu;
  assign scan_group_last   = 32'(scan_job.group_last);
  assign scan_pass_last    = 32'(scan_job.pass_last);
  assign scan_listed       = scan_job.listed;
  assign scan_maxima       = scan_job.maxima;
  assign scan_none         = scan_job.none;
  assign scan_first_page   = 32'(scan_job.first_page);
  assign scan_last_page    = 32'(scan_job.last_page);
  assign scan_skip         = 32'(scan_job.skip);
  assign scan_last_entry   = 32'(scan_job.last_entry);
  assign scan_list_beat    = scan_job.list_beat;
  assign scan_block_beat   = scan_job.block_beat;
  assign scan_first_beats  = 32'(scan_job.first_beats);
  assign scan_second_at    = 32'(scan_job.second_at);
  assign scan_second_beats = 32'(scan_job.second_beats);
  assign query_last        = query_head.last;
  assign query_is_param    = query_head.is_param;
  assign query_number      = 32'(query_head.query);
  assign query_segment     = 32'(query_head.segment);
  assign select_plain      = select_job.plain;
  assign select_exp2       = select_job.exp2;
  assign select_relu       = select_job.relu;
  assign select_bounded    = select_job.bounded;
  assign select_bound      = select_job.bound;
  assign select_shape      = 32'(select_job.shape);
  assign select_of_page    = 32'(select_job.of_page);
  assign select_group_last = 32'(select_job.group_last);
  assign select_pass_last  = 32'(select_job.pass_last);
  assign select_listed     = select_job.listed;
  assign select_to_list    = select_job.to_list;
  assign select_measured   = select_job.measured;
  assign select_kept       = select_job.kept;
  assign select_none       = select_job.none;
  assign select_first_page = 32'(select_job.first_page);
  assign select_last_page  = 32'(select_job.last_page);
  assign select_skip       = 32'(select_job.skip);
  assign select_last_entry = 32'(select_job.last_entry);
  assign select_shift      = 32'(select_job.shift);
  assign select_k          = 32'(select_job.k);
  assign base_beat0        = base_beat[0][31:0];
  assign base_beat1        = base_beat[1][31:0];
  always_comb begin
    for (int c = 0; c < CHANNELS; c++) faults[c] = fault_t'(fault[c]);
    head = '{
        to_list: head_to_list,
        measured: head_measured,
        scored: head_scored,
        pages: head_pages,
        candidates: head_candidates,
        cut: head_cut,
        count: head_count,
        last_rank: head_last_rank,
        weigh: '0
    };
    hit_beat = '{last: hit_last, count: hit_count};
  end

  command #(
      .CHANNELS(CHANNELS),
      .G(G),
      .S(S),
      .BANK_WORDS(BANK_WORDS),
      .N_QUEUES(N_QUEUES)
  ) dut (
      .fault(faults),
      .*
  );
endmodule
