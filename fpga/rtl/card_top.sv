// The card: command processor, a scan lane for each channel, and selection over all lanes.
//
// Streams: registers (AXI-Lite, s_), host memory (AXI4, h_), a read port for each channel (AXI4); irq is a
// level that asks for the host. Jobs and queries go to all lanes; scores of all lanes meet in the selector, values of
// weighted sums in the recall unit; hits
// go back to the command processor, which writes them. Latency and stalls are those of the parts. Equals layout::ScoreSelect of the
// descriptors in the queues, one result block for each position and head.
module card_top
  import card_types::*;
#(
    parameter int CHANNELS = 2,
    parameter int G = 4,
    parameter int S = 16,
    parameter int BANK_WORDS = 4096,
    parameter int N_QUEUES = 8
) (
    input  logic        clk,
    input  logic        rst,
    // Registers
    input  logic        s_awvalid,
    output logic        s_awready,
    input  logic [12:0] s_awaddr,
    input  logic        s_wvalid,
    output logic        s_wready,
    input  logic [31:0] s_wdata,
    output logic        s_bvalid,
    input  logic        s_bready,
    output logic [1:0]  s_bresp,
    input  logic        s_arvalid,
    output logic        s_arready,
    input  logic [12:0] s_araddr,
    output logic        s_rvalid,
    input  logic        s_rready,
    output logic [31:0] s_rdata,
    output logic [1:0]  s_rresp,
    output logic        irq,
    // Channels
    output logic [CHANNELS-1:0]        ar_valid,
    input  logic [CHANNELS-1:0]        ar_ready,
    output logic [CHANNELS-1:0][39:0]  ar_addr,
    output logic [CHANNELS-1:0][7:0]   ar_len,
    input  logic [CHANNELS-1:0]        r_valid,
    output logic [CHANNELS-1:0]        r_ready,
    input  logic [CHANNELS-1:0][511:0] r_data,
    input  logic [CHANNELS-1:0][1:0]   r_resp,
    input  logic [CHANNELS-1:0]        r_last,
    // Host memory
    output logic         h_ar_valid,
    input  logic         h_ar_ready,
    output logic [63:0]  h_ar_addr,
    output logic [7:0]   h_ar_len,
    input  logic         h_r_valid,
    output logic         h_r_ready,
    input  logic [511:0] h_r_data,
    input  logic [1:0]   h_r_resp,
    input  logic         h_r_last,
    output logic         h_aw_valid,
    input  logic         h_aw_ready,
    output logic [63:0]  h_aw_addr,
    output logic [7:0]   h_aw_len,
    output logic         h_w_valid,
    input  logic         h_w_ready,
    output logic [511:0] h_w_data,
    output logic [63:0]  h_w_strb,
    output logic         h_w_last,
    input  logic         h_b_valid,
    output logic         h_b_ready,
    input  logic [1:0]   h_b_resp
);
  localparam int SCAN_BITS = $bits(scan_job_t);
  localparam int QUERY_BITS = $bits(query_head_t) + 512;
  localparam int HIT_BITS = $bits(hit_beat_t) + 2 * 512;

  logic core_rst;
  logic stop;
  logic [31:0] cycle;
  logic [CHANNELS-1:0] open;
  fault_t [CHANNELS-1:0] fault;
  logic [CHANNELS-1:0][33:0] base_beat;
  logic [CHANNELS-1:0][31:0] length_beats;
  logic [CHANNELS-1:0] ev_beat, ev_stall_memory, ev_stall_tables, ev_stall_scorers, ev_stall_bank, ev_busy;

  logic scan_valid, scan_ready;
  scan_job_t scan_job;
  logic query_valid, query_ready;
  query_head_t query_head;
  logic [511:0] query_data;
  logic octave_valid, octave_ready;
  logic [4:0] octave;
  logic select_valid, select_ready;
  select_job_t select_job;
  logic head_valid, head_ready, found_head_valid, found_head_ready, passed_head_valid, passed_head_ready;
  hit_head_t head, found_head, passed_head;
  logic hit_valid, hit_ready, found_hit_valid, found_hit_ready, passed_hit_valid, passed_hit_ready;
  hit_beat_t hit_beat, found_hit_beat, passed_hit_beat;
  logic [511:0] hit_ids, hit_ranks, found_hit_ids, found_hit_ranks, passed_hit_ids, passed_hit_ranks;

  command #(
      .CHANNELS(CHANNELS),
      .G(G),
      .S(S),
      .BANK_WORDS(BANK_WORDS),
      .N_QUEUES(N_QUEUES)
  ) u_command (
      .clk,
      .rst,
      .s_awvalid,
      .s_awready,
      .s_awaddr,
      .s_wvalid,
      .s_wready,
      .s_wdata,
      .s_wstrb(4'hF),
      .s_bvalid,
      .s_bready,
      .s_bresp,
      .s_arvalid,
      .s_arready,
      .s_araddr,
      .s_rvalid,
      .s_rready,
      .s_rdata,
      .s_rresp,
      .irq,
      .ar_valid(h_ar_valid),
      .ar_ready(h_ar_ready),
      .ar_addr(h_ar_addr),
      .ar_len(h_ar_len),
      .r_valid(h_r_valid),
      .r_ready(h_r_ready),
      .r_data(h_r_data),
      .r_resp(h_r_resp),
      .r_last(h_r_last),
      .aw_valid(h_aw_valid),
      .aw_ready(h_aw_ready),
      .aw_addr(h_aw_addr),
      .aw_len(h_aw_len),
      .w_valid(h_w_valid),
      .w_ready(h_w_ready),
      .w_data(h_w_data),
      .w_strb(h_w_strb),
      .w_last(h_w_last),
      .b_valid(h_b_valid),
      .b_ready(h_b_ready),
      .b_resp(h_b_resp),
      .scan_valid,
      .scan_ready,
      .scan_job,
      .query_valid,
      .query_ready,
      .query_head,
      .query_data,
      .octave_valid,
      .octave_ready,
      .octave,
      .select_valid,
      .select_ready,
      .select_job,
      .head_valid,
      .head_ready,
      .head,
      .hit_valid,
      .hit_ready,
      .hit_beat,
      .hit_ids,
      .hit_ranks,
      .core_rst,
      .stop,
      .open,
      .fault,
      .base_beat,
      .length_beats,
      .cycle,
      .ev_beat,
      .ev_stall_memory,
      .ev_stall_tables,
      .ev_stall_scorers,
      .ev_stall_bank,
      .ev_busy
  );

  logic [CHANNELS-1:0] lane_job_valid, lane_job_ready;
  scan_job_t lane_job;
  stream_fork #(
      .N(CHANNELS),
      .WIDTH(SCAN_BITS)
  ) u_jobs (
      .clk,
      .rst(core_rst),
      .in_valid(scan_valid),
      .in_ready(scan_ready),
      .in_data(scan_job),
      .out_valid(lane_job_valid),
      .out_ready(lane_job_ready),
      .out_data(lane_job)
  );

  logic [CHANNELS-1:0] lane_query_valid, lane_query_ready;
  query_head_t lane_query_head;
  logic [511:0] lane_query_data;
  stream_fork #(
      .N(CHANNELS),
      .WIDTH(QUERY_BITS)
  ) u_queries (
      .clk,
      .rst(core_rst),
      .in_valid(query_valid),
      .in_ready(query_ready),
      .in_data({query_head, query_data}),
      .out_valid(lane_query_valid),
      .out_ready(lane_query_ready),
      .out_data({lane_query_head, lane_query_data})
  );

  logic [CHANNELS-1:0] list_valid, list_ready;
  list_entry_t [CHANNELS-1:0] list;
  logic [CHANNELS-1:0] lane_valid, lane_ready, score_valid, score_ready;
  score_head_t [CHANNELS-1:0] score_head;
  logic [CHANNELS-1:0][S*16-1:0] score_y;
  logic [CHANNELS-1:0][4:0] lane_top;
  // Values go from the last lane to the first one, then to the recall unit.
  logic send_valid;
  logic [4:0] send_lane;
  logic [CHANNELS-1:0] send;
  logic [CHANNELS:0] value_valid, value_counts;
  logic [CHANNELS:0][G*16-1:0] value_y;
  logic [CHANNELS:0][4:0] value_top;
  assign {value_valid[CHANNELS], value_counts[CHANNELS], value_y[CHANNELS], value_top[CHANNELS]} = '0;
  always_ff @(posedge clk) begin
    for (int i = 0; i < CHANNELS; ++i) send[i] <= send_valid && send_lane == 5'(i) && !core_rst;
  end

  for (genvar i = 0; i < CHANNELS; ++i) begin : g_lane
    lane #(
        .CHANNELS(CHANNELS),
        .G(G),
        .S(S)
    ) u_lane (
        .clk,
        .rst(core_rst),
        .lane_id(5'(i)),
        .base_beat(base_beat[i]),
        .length_beats(length_beats[i]),
        .job_valid(lane_job_valid[i]),
        .job_ready(lane_job_ready[i]),
        .job(lane_job),
        .query_valid(lane_query_valid[i]),
        .query_ready(lane_query_ready[i]),
        .query_head(lane_query_head),
        .query_data(lane_query_data),
        .list_valid(list_valid[i]),
        .list_ready(list_ready[i]),
        .list(list[i]),
        .ar_valid(ar_valid[i]),
        .ar_ready(ar_ready[i]),
        .ar_addr(ar_addr[i]),
        .ar_len(ar_len[i]),
        .r_valid(r_valid[i]),
        .r_ready(r_ready[i]),
        .r_data(r_data[i]),
        .r_resp(r_resp[i]),
        .r_last(r_last[i]),
        .score_valid(lane_valid[i]),
        .score_ready(lane_ready[i]),
        .score_head(score_head[i]),
        .score_y(score_y[i]),
        .top(lane_top[i]),
        .stop,
        .open(open[i]),
        .fault(fault[i]),
        .ev_beat(ev_beat[i]),
        .ev_stall_memory(ev_stall_memory[i]),
        .ev_stall_tables(ev_stall_tables[i]),
        .ev_stall_scorers(ev_stall_scorers[i]),
        .ev_stall_bank(ev_stall_bank[i]),
        .ev_busy(ev_busy[i])
    );

    recall_tap #(
        .G(G),
        .S(S)
    ) u_tap (
        .clk,
        .rst(core_rst),
        .lane_valid(lane_valid[i]),
        .lane_ready(lane_ready[i]),
        .lane_head(score_head[i]),
        .lane_y(score_y[i]),
        .lane_top(lane_top[i]),
        .score_valid(score_valid[i]),
        .score_ready(score_ready[i]),
        .send(send[i]),
        .in_valid(value_valid[i+1]),
        .in_counts(value_counts[i+1]),
        .in_y(value_y[i+1]),
        .in_top(value_top[i+1]),
        .out_valid(value_valid[i]),
        .out_counts(value_counts[i]),
        .out_y(value_y[i]),
        .out_top(value_top[i])
    );
  end

  selector #(
      .CHANNELS(CHANNELS),
      .G(G),
      .S(S),
      .BANK_WORDS(BANK_WORDS)
  ) u_selector (
      .clk,
      .rst(core_rst),
      .cycle,
      .job_valid(select_valid),
      .job_ready(select_ready),
      .job(select_job),
      .score_valid,
      .score_ready,
      .score_head,
      .score_y,
      .list_valid,
      .list_ready,
      .list,
      .head_valid(found_head_valid),
      .head_ready(found_head_ready),
      .head(found_head),
      .hit_valid(found_hit_valid),
      .hit_ready(found_hit_ready),
      .hit_beat(found_hit_beat),
      .hit_ids(found_hit_ids),
      .hit_ranks(found_hit_ranks)
  );

  recall_unit #(
      .CHANNELS(CHANNELS),
      .G(G)
  ) u_recall (
      .clk,
      .rst(core_rst),
      .head_valid(found_head_valid),
      .head_ready(found_head_ready),
      .head(found_head),
      .hit_valid(found_hit_valid),
      .hit_ready(found_hit_ready),
      .hit_beat(found_hit_beat),
      .hit_ids(found_hit_ids),
      .hit_ranks(found_hit_ranks),
      .octave_valid,
      .octave_ready,
      .octave,
      .send_valid,
      .send_lane,
      .value_valid(value_valid[0]),
      .value_counts(value_counts[0]),
      .value_y(value_y[0]),
      .value_top(value_top[0]),
      .out_head_valid(passed_head_valid),
      .out_head_ready(passed_head_ready),
      .out_head(passed_head),
      .out_hit_valid(passed_hit_valid),
      .out_hit_ready(passed_hit_ready),
      .out_hit_beat(passed_hit_beat),
      .out_hit_ids(passed_hit_ids),
      .out_hit_ranks(passed_hit_ranks)
  );

  // Readies of results end here: they come late in a cycle, and would go through the weighted sums to the selector.
  skid #(
      .WIDTH($bits(hit_head_t))
  ) heads (
      .clk,
      .rst(core_rst),
      .in_valid(passed_head_valid),
      .in_ready(passed_head_ready),
      .in_data(passed_head),
      .out_valid(head_valid),
      .out_ready(head_ready),
      .out_data(head)
  );
  skid #(
      .WIDTH(HIT_BITS)
  ) hits (
      .clk,
      .rst(core_rst),
      .in_valid(passed_hit_valid),
      .in_ready(passed_hit_ready),
      .in_data({passed_hit_beat, passed_hit_ids, passed_hit_ranks}),
      .out_valid(hit_valid),
      .out_ready(hit_ready),
      .out_data({hit_beat, hit_ids, hit_ranks})
  );
endmodule
