// Turns pages into items, one a pass over the queries, and orders the tables of their queries.
//
// Streams: pages (never stalled, at most 30 wait); items for planes, for bases (codes alone) and for scores;
// orders of tables. Jobs of one or two passes have their tables built once; with more passes each item has
// its tables built anew. Banks alternate from order to order. Latency: 5 cycles; an item a cycle. Stalls: any
// of the four queues is full.
module pass_planner
  import card_types::*;
  import scan_types::*;
(
    input  logic       clk,
    input  logic       rst,
    input  logic       form_we,
    input  logic [1:0] form_slot,
    // Each stage keeps what it needs of a job, and of a page.
    // verilator lint_off UNUSEDSIGNAL
    input  form_t      form,
    input  logic       page_valid,
    input  page_t      page,
    // verilator lint_on UNUSEDSIGNAL
    output logic       plane_valid,
    input  logic       plane_ready,
    output item_t      plane_item,
    output logic       base_valid,
    input  logic       base_ready,
    output item_t      base_item,
    output logic       score_valid,
    input  logic       score_ready,
    output item_t      score_item,
    output logic       build_valid,
    input  logic       build_ready,
    output build_t     build
);
  typedef struct packed {
    logic none;
    logic first;
    logic last;
    logic [1:0] job;
    logic [4:0] slot;
  } head_t;
  head_t next, head;
  logic next_valid, next_take, head_valid, head_take, pages_ready;
  logic [5:0] unused_pages_level;
  fifo_late #(
      .WIDTH($bits(head_t)),
      .DEPTH(32)
  ) pages (
      .clk,
      .rst,
      .in_valid(page_valid),
      .in_ready(pages_ready),
      .in_data({page.none, page.first, page.last, page.job, page.slot}),
      .out_valid(next_valid),
      .out_ready(next_take),
      .out_data(next),
      .level(unused_pages_level)
  );

  logic next_codes;
  logic [3:0] next_pass_last;
  ram_lut #(
      .WIDTH(5),
      .DEPTH(4)
  ) forms (
      .clk,
      .we(form_we),
      .waddr(form_slot),
      .wdata({form.kind == KIND_CODES, form.pass_last}),
      .raddr(next.job),
      .rdata({next_codes, next_pass_last})
  );

  logic [3:0] pass, passes_left;
  logic next_bank, first_bank;  // first_bank: of pass 0
  logic codes, ends, many, fresh, emit, space;  // ends: the page's last pass
  item_t item;
  logic planes_in, bases_in, scores_in, builds_in;
  assign fresh = !head.none && (many || head.first);
  assign item = '{
          none: head.none,
          last: head.last && ends,
          last_pass: ends,
          free_bank: many || head.last,
          bank: fresh ? next_bank : first_bank ^ pass[0],
          job: head.job,
          slot: head.slot,
          pass: pass
      };
  assign space = planes_in && bases_in && scores_in && builds_in;
  assign emit = head_valid && space;
  assign head_take = emit && ends;
  assign next_take = !head_valid || head_take;

  always_ff @(posedge clk) begin
    if (rst) begin
      pass <= '0;
      next_bank <= 1'b0;
      head_valid <= 1'b0;
    end else begin
      if (next_take) head_valid <= next_valid;
      if (emit) pass <= ends ? '0 : pass + 4'd1;
      if (emit && fresh) next_bank <= !next_bank;
    end
    if (next_take) begin
      head <= next;
      codes <= next_codes;
      passes_left <= next_pass_last;
      ends <= next.none || next_pass_last == '0;
      many <= next_pass_last > 4'd1;
    end else if (emit) begin
      passes_left <= passes_left - 4'd1;
      ends <= passes_left == 4'd1;
    end
    if (emit && pass == '0 && fresh) first_bank <= next_bank;
  end

  logic [$bits(item_t)-1:0] plane_bits, base_bits, score_bits;
  logic [$bits(build_t)-1:0] build_bits;
  logic [4:0] unused_planes_level;
  fifo_late #(
      .WIDTH($bits(item_t)),
      .DEPTH(16)
  ) planes (
      .clk,
      .rst,
      .in_valid(emit && !head.none),
      .in_ready(planes_in),
      .in_data(item),
      .out_valid(plane_valid),
      .out_ready(plane_ready),
      .out_data(plane_bits),
      .level(unused_planes_level)
  );
  logic [4:0] unused_bases_level;
  fifo_late #(
      .WIDTH($bits(item_t)),
      .DEPTH(16)
  ) bases (
      .clk,
      .rst,
      .in_valid(emit && !head.none && codes),
      .in_ready(bases_in),
      .in_data(item),
      .out_valid(base_valid),
      .out_ready(base_ready),
      .out_data(base_bits),
      .level(unused_bases_level)
  );
  logic [4:0] unused_scores_level;
  fifo_late #(
      .WIDTH($bits(item_t)),
      .DEPTH(16)
  ) scores (
      .clk,
      .rst,
      .in_valid(emit),
      .in_ready(scores_in),
      .in_data(item),
      .out_valid(score_valid),
      .out_ready(score_ready),
      .out_data(score_bits),
      .level(unused_scores_level)
  );
  logic [3:0] unused_builds_level;
  fifo_late #(
      .WIDTH($bits(build_t)),
      .DEPTH(8)
  ) builds (
      .clk,
      .rst,
      .in_valid(emit && fresh),
      .in_ready(builds_in),
      .in_data({item.bank, head.job, pass}),
      .out_valid(build_valid),
      .out_ready(build_ready),
      .out_data(build_bits),
      .level(unused_builds_level)
  );
  assign plane_item = item_t'(plane_bits);
  assign base_item = item_t'(base_bits);
  assign score_item = item_t'(score_bits);
  assign build = build_t'(build_bits);

  logic unused;
  assign unused = &{1'b0, pages_ready, 1'b0};
endmodule
