// Makes the jobs of a descriptor: one a position and head. A cascade has two: the sign stage, whose hits become the
// lanes' lists, then the listed one. A long scan has two as well: that of the pages' largest scores, whose k best pages
// become the lists, then the listed one. The second follows at once: it takes its list while the first one's bank is
// still read. With a bound the first one gives the best scores alone, and the second one scans all pages again, as the
// entries that reach it are counted. A long scan with a first stage has four: the two of the sign stage, whose hits become the lists, then two
// that read all planes of these, for the best scores and for the entries. A weighted sum has four for each SUM_DIMS
// elements of a head: that of all ranks, then a scan of the tokens' values by unit queries, without a select job; then
// both again with the values of bases.
//
// Stream in: a descriptor with its verdict and sizes. Streams out: its context (also of a refused one), then for each
// job a scan job, a select job and a load of its queries; all in the same order. The latest entries need no job. A
// scan job goes out when its first lane can take it, up to JOBS jobs ahead of the lanes: so the next job's queries
// load while this one scans. Latency: 8 cycles to the first job, then 2 a job. Stalls: each stream out. Equals
// layout::ScoreSelect's loop, DotShift (numerics.h) and CardBlockOf (card.h).
module job_sequencer
  import mnemo_pkg::*;
  import card_types::*;
  import command_types::*;
#(
    parameter int G = 4,
    parameter int JOBS = 4
) (
    input  logic                clk,
    input  logic                rst,
    input  logic         [31:0] cycle,
    output logic                ev_job,
    output logic                busy,
    input  logic                fetched_valid,
    output logic                fetched_ready,
    /* verilator lint_off UNUSEDSIGNAL */  // fields that only the check needs
    input  fetched_t            fetched,
    /* verilator lint_on UNUSEDSIGNAL */
    input  logic         [15:0] status,
    input  logic         [15:0] detail,
    input  block_units_t        block,
    output logic                context_valid,
    input  logic                context_ready,
    output context_t            context_out,
    output logic                scan_valid,
    input  logic                scan_ready,
    output scan_job_t           scan_job,
    output logic                select_valid,
    input  logic                select_ready,
    output select_job_t         select_job,
    output logic                load_valid,
    input  logic                load_ready,
    output load_t               load
);
  localparam int G_LOG2 = $clog2(G);
  localparam int SUM_LOG2 = (G_LOG2 < 2) ? G_LOG2 + 4 : 6;  // elements of a scan of values, at most 16 passes

  typedef enum logic [2:0] {
    IDLE,
    SETUP,
    CONTEXT,
    NEXT,
    ADVANCE
  } state_t;

  /* verilator lint_off UNUSEDSIGNAL */  // as above
  descriptor_t d;
  queue_t q;
  card_index_t index;
  card_block_t layout;
  logic [31:0] last_token;  // below 2^30, see descriptor_check
  logic [41:0] product;  // blocks of an extent stay below 2^32 beats
  /* verilator lint_on UNUSEDSIGNAL */
  state_t state;
  logic [2:0] setup;  // cycle of SETUP
  logic [25:0] a;
  logic [15:0] b;
  logic [31:0] block_beat, first_block;
  logic [63:0] payload;
  logic [3:0] dim_log2;
  // The kind of a descriptor, a cycle or two after it, and where its jobs are, a cycle after they move on.
  logic codes, two_bit, bounds, means, pages64, cascade, long_scan, all_twice, weighted, job_last, last_head;
  wire [2:0] format = d.format[2:0];
  logic [1:0] stage, last_stage;
  logic last_position, extra;  // extra: one head answers it and the job before
  logic [7:0] head, position;
  logic [31:0] first_entry, end_entry;
  scan_job_t scan_base, scan, scan_next;
  select_job_t select_base, select, select_next;
  logic scan_in, select_in, load_in, scan_room, select_room, load_room;
  load_t load_next;
  // Steps of a weighted sum: step[0] scans values, step[1] those of bases.
  logic [5:0] step, step_last, values_last;
  logic [3:0] passes_last;
  logic [9:0] beats3;
  wire values = weighted && step[0];
  logic [23:0] k1, payload_units;

  assign busy = state != IDLE;
  assign ev_job = scan_in && scan_room && !extra;

  always_ff @(posedge clk) begin
    if (state == IDLE) begin
      d     <= fetched.taken.descriptor;
      q     <= fetched.taken.regs;
      index <= fetched.index;
      context_out.number   <= fetched.taken.number;
      context_out.status   <= status;
      context_out.detail   <= detail;
      context_out.taken_at <= fetched.taken.cycle;
      context_out.watermark <= fetched.tokens;
      context_out.block_units <= block.result_block;
      context_out.blocks <= block.blocks;
      payload_units <= block.payload_block;
      long_scan <= block.long_scan;
      context_out.started_at <= cycle;
    end
  end
  assign fetched_ready = state == IDLE;

  // The common part of a descriptor's jobs.
  always_ff @(posedge clk) begin
    codes <= format <= FORMAT_CODES8[2:0];
    two_bit <= format == FORMAT_CODES2[2:0];
    bounds <= format == FORMAT_BOUNDS[2:0];
    means <= format == FORMAT_MEANS[2:0];
    pages64 <= (d.flags & FLAG_PAGES64) != '0;
    cascade <= d.k1 != '0;
    k1 <= (d.k1[31:24] != '0) ? '1 : d.k1[23:0];
    weighted <= d.select_op == SELECT_WEIGHTED_SUM;
    all_twice <= long_scan && d.select_op == SELECT_THRESHOLD && !cascade;
    last_stage <= cascade && long_scan ? 2'd3 : 2'(cascade || long_scan);
    job_last <= weighted ? step == step_last : stage == last_stage;
    last_head <= head == d.heads - 8'd1;
    last_position <= position == d.queries - 8'd1;
    if (index.dim[4]) dim_log2 <= 4'd4;
    else if (index.dim[5]) dim_log2 <= 4'd5;
    else if (index.dim[6]) dim_log2 <= 4'd6;
    else dim_log2 <= index.dim[7] ? 4'd7 : 4'd8;
    layout <= card_block({5'b0, format}, dim_log2);
    last_token <= d.end_token - 32'd1;
    product <= a * b;
    step_last <= {4'((32'd1 << dim_log2) >> SUM_LOG2) - 4'(dim_log2 >= 4'(SUM_LOG2)), 2'b11};
    values_last <= (dim_log2 < 4'(SUM_LOG2)) ? 6'((7'd1 << dim_log2) - 7'd1) : 6'((7'd1 << SUM_LOG2) - 7'd1);
    passes_last <= 4'(values_last >> G_LOG2);
    beats3 <= layout.beats + {layout.beats[8:0], 1'b0};

    scan_base.kind <= codes ? KIND_CODES : bounds ? KIND_BOUNDS : KIND_MEANS;
    scan_base.vector_log2 <= ((dim_log2 < 4'd6) ? 4'd6 : dim_log2) + (bounds ? 4'd1 : 4'd0);
    scan_base.planes <= layout.planes[3:0];
    scan_base.two_bit <= two_bit;
    scan_base.sign_stage <= 1'b0;
    scan_base.page_row <= means && pages64;
    scan_base.fold <= bounds && pages64;
    scan_base.code_shift <= 5'(dim_log2) +
        (two_bit ? 5'd2 : (format == FORMAT_CODES4[2:0]) ? 5'd3 : 5'd7);
    scan_base.base_shift <= 5'(dim_log2) + 5'd7;
    scan_base.group_last <= 6'(d.group - 8'd1);
    scan_base.pass_last <= 4'((d.group - 8'd1) >> G_LOG2);
    scan_base.relu <= d.score_op == SCORE_RELU_DOT;
    scan_base.part <= Y_ALL;
    scan_base.listed <= 1'b0;
    scan_base.maxima <= 1'b0;
    scan_base.none <= d.begin_token == d.end_token;
    scan_base.first_page <= d.begin_token[29:6] + 24'(index.shift);
    scan_base.last_page <= last_token[29:6] + 24'(index.shift);
    scan_base.skip <= codes ? d.begin_token[5:0] : pages64 ? 6'd0 : {4'd0, d.begin_token[5:4]};
    scan_base.last_entry <= codes ? last_token[5:0] : pages64 ? 6'd0 : {4'd0, last_token[5:4]};
    scan_base.list_beat <= index.list_beat;
    scan_base.block_beat <= '0;
    // The page's own row of means has beats of its own, but for dim 64.
    if (means && layout.page_row != layout.beats) begin
      scan_base.first_beats <= pages64 ? 9'd1 : layout.page_row[8:0];
      scan_base.second_at <= pages64 ? layout.page_row[8:0] : 9'd0;
      scan_base.second_beats <= pages64 ? 9'(layout.beats - layout.page_row) : 9'd0;
    end else begin
      scan_base.first_beats <= layout.beats[8:0];
      scan_base.second_at <= '0;
      scan_base.second_beats <= '0;
    end

    select_base.plain <= d.group_op == GROUP_PLAIN_MAX;
    select_base.exp2 <= d.group_op == GROUP_EXP2_SUM;
    select_base.relu <= d.score_op == SCORE_RELU_DOT;
    select_base.bounded <= d.select_op == SELECT_THRESHOLD;
    select_base.bound <= d.threshold;
    select_base.shape <= codes ? SHAPE_TOKENS : pages64 ? SHAPE_PAGES : SHAPE_PARTS;
    select_base.of_page <= codes ? SHAPE_TOKENS : pages64 ? SHAPE_PAGES : SHAPE_PARTS;
    select_base.group_last <= 6'(d.group - 8'd1);
    select_base.pass_last <= 4'((d.group - 8'd1) >> G_LOG2);
    select_base.listed <= 1'b0;
    select_base.to_list <= 1'b0;
    select_base.kept <= 1'b0;
    select_base.measured <= 1'b0;
    select_base.none <= d.begin_token == d.end_token;
    select_base.first_page <= d.begin_token[29:6] + 24'(index.shift);
    select_base.last_page <= last_token[29:6] + 24'(index.shift);
    select_base.skip <= scan_base.skip;
    select_base.last_entry <= scan_base.last_entry;
    select_base.shift <= index.shift[4:0];
    select_base.k <= weighted ? '1 : d.k[23:0];
    select_base.weigh <= '{
        on: weighted,
        first: 1'b0,
        bases: 1'b0,
        last: 1'b0,
        pass_last: passes_last,
        blocks_log2: (dim_log2 < 4'(SUM_LOG2)) ? 3'd0 : 3'(dim_log2 - 4'(SUM_LOG2)),
        shift: index.shift[4:0]
    };
  end

  always_comb begin
    scan            = scan_base;
    scan.block_beat = block_beat;
    select          = select_base;
    if (cascade && (long_scan ? !stage[1] : stage == 2'd0)) begin
      scan.sign_stage    = 1'b1;
      scan.planes        = 4'd1;
      scan.code_shift    = 5'(dim_log2);
      scan.first_beats   = layout.scales[8:0];
      select.to_list = 1'b1;
      select.bounded = 1'b0;
      select.k       = k1;
    end
    if (values) begin
      scan.part       = step[1] ? Y_BASES : Y_TOKENS;
      scan.code_shift = '0;
      scan.base_shift = '0;
      scan.group_last = values_last;
      scan.pass_last  = passes_last;
      if (step[1]) begin
        scan.sign_stage  = 1'b1;
        scan.planes      = 4'd1;
        scan.first_beats = layout.scales[8:0];
      end
    end
    select.weigh.first = step == '0;
    select.weigh.bases = step[1];
    select.weigh.last  = step[5:1] == step_last[5:1];
    if (long_scan && !stage[0]) begin
      scan.maxima     = 1'b1;
      select.shape    = SHAPE_MAXIMA;
      select.to_list  = !stage[1] && !all_twice;
      select.measured = stage[1] || all_twice;
      if (select.measured) select.bounded = 1'b0;
    end
    if (stage != 2'd0) begin
      scan.listed   = !all_twice;
      select.listed = !select.measured && !all_twice;
      select.kept   = long_scan && stage[0];
    end
  end

  always_ff @(posedge clk) begin
    if (rst) begin
      state         <= IDLE;
      context_valid <= 1'b0;
      scan_in       <= 1'b0;
      select_in     <= 1'b0;
      load_in       <= 1'b0;
    end else begin
      if (context_ready) context_valid <= 1'b0;
      if (scan_room) scan_in <= 1'b0;
      if (select_room) select_in <= 1'b0;
      if (load_room) load_in <= 1'b0;
      unique case (state)
        IDLE: begin
          setup <= '0;
          if (fetched_valid) state <= SETUP;
        end
        SETUP: begin
          setup <= setup + 1'b1;
          if (setup == 3'd5) begin
            context_valid <= 1'b1;
            state         <= CONTEXT;
          end
        end
        CONTEXT: if (context_ready) state <= (context_out.status == STATUS_OK && !context_out.latest) ? NEXT : IDLE;
        NEXT: begin
          if (!scan_in && !select_in && !load_in) begin
            scan_in   <= 1'b1;
            select_in <= !values;
            load_in   <= 1'b1;
            state     <= ADVANCE;
          end
        end
        ADVANCE: state <= (job_last && last_head && last_position) ? IDLE : NEXT;
        default: state <= IDLE;
      endcase
    end

    if (state == SETUP) begin
      unique case (setup)
        3'd0: begin
          {a, b} <= {10'b0, d.layer_slot, index.heads};
          payload <= (d.payload_region[0] ? q.region1 : q.region0) + {26'b0, d.payload_offset, 6'b0};
          context_out.address <= (d.result_region[0] ? q.region1 : q.region0) + {26'b0, d.result_offset, 6'b0};
          context_out.seq <= d.seq;
          context_out.index_id <= d.index_id;
          context_out.k <= d.k[23:0];
          context_out.ranks <= (d.flags & FLAG_RANKS) != '0;
          context_out.latest <= d.select_op == SELECT_LATEST;
          head <= '0;
          position <= '0;
          stage <= '0;
          step <= '0;
        end
        3'd1: begin
          first_entry <= codes ? d.begin_token : pages64 ? d.begin_token >> 6 : d.begin_token >> 4;
          end_entry <= codes ? d.end_token : pages64 ? d.end_token >> 6 : d.end_token >> 4;
        end
        3'd2: begin
          context_out.entries <= end_entry - first_entry;
          {a, b} <= {product[25:0] + 26'(d.first_head), index.block_beats[15:0]};
        end
        3'd3: context_out.latest_count <= (context_out.entries < d.k) ? context_out.entries : d.k;
        3'd4: begin
          context_out.latest_first <= end_entry - context_out.latest_count;
          block_beat               <= product[31:0];
          first_block              <= product[31:0];
          context_out.first_beats  <= cascade ? layout.scales :
              long_scan ? 10'(scan_base.first_beats) + 10'(scan_base.second_beats) : '0;
          context_out.second_beats <= weighted ? beats3 + layout.scales :
              10'(scan_base.first_beats) + 10'(scan_base.second_beats);
        end
        default: ;
      endcase
    end
    if (state == NEXT && !scan_in && !select_in && !load_in) begin
      scan_next         <= scan;
      select_next       <= select;
      load_next         <= '{
          address: payload,
          beats: values ? '0 : payload_units,
          group_last: scan.group_last,
          dim_log2: (values && dim_log2 < 4'd6) ? 4'd6 : dim_log2,
          bounds: bounds,
          values: values,
          element: 8'(32'(step[5:2]) << SUM_LOG2)
      };
      extra <= weighted && step != '0;
    end
    if (state == ADVANCE) begin
      stage <= (job_last || weighted) ? '0 : stage + 1'b1;
      step <= (weighted && !job_last) ? step + 1'b1 : '0;
      if (job_last) begin
        head       <= last_head ? '0 : head + 1'b1;
        position   <= last_head ? position + 1'b1 : position;
        payload    <= payload + {34'b0, payload_units, 6'b0};
        block_beat <= last_head ? first_block : block_beat + index.block_beats;
      end
    end
  end

  // Levels are nobody's: contexts tell what is under way.
  /* verilator lint_off UNUSEDSIGNAL */  // as said
  logic [$clog2(JOBS):0] scans_level, selects_level, loads_level;
  /* verilator lint_on UNUSEDSIGNAL */

  fifo #(
      .WIDTH($bits(scan_job_t)),
      .DEPTH(JOBS)
  ) scans (
      .clk,
      .rst,
      .in_valid (scan_in),
      .in_ready (scan_room),
      .in_data  (scan_next),
      .out_valid(scan_valid),
      .out_ready(scan_ready),
      .out_data (scan_job),
      .level    (scans_level)
  );

  fifo #(
      .WIDTH($bits(select_job_t)),
      .DEPTH(JOBS)
  ) selects (
      .clk,
      .rst,
      .in_valid (select_in),
      .in_ready (select_room),
      .in_data  (select_next),
      .out_valid(select_valid),
      .out_ready(select_ready),
      .out_data (select_job),
      .level    (selects_level)
  );

  fifo #(
      .WIDTH($bits(load_t)),
      .DEPTH(JOBS)
  ) loads (
      .clk,
      .rst,
      .in_valid (load_in),
      .in_ready (load_room),
      .in_data  (load_next),
      .out_valid(load_valid),
      .out_ready(load_ready),
      .out_data (load),
      .level    (loads_level)
  );

endmodule
