// Builds the tables of a pass' G queries in one of two banks: 16 cycles a segment of 64 codes.
//
// Streams: orders of tables, in the order in which items use them. An order waits until its job's queries are
// complete and its bank is free: planes and bases have released it. Codes come from query_store a cycle after
// code_read. Tables: table_* writes one address of all tables of `table_segment`. plane_full, base_full: banks that may be
// used. Latency: 2 cycles to the first write.
module table_control
  import card_types::*;
  import scan_types::*;
#(
    parameter int G = 4
) (
    input  logic                       clk,
    input  logic                       rst,
    input  logic                       form_we,
    input  logic [ 1:0]                form_slot,
    // Each stage keeps what it needs of a job.
    // verilator lint_off UNUSEDSIGNAL
    input  form_t                      form,
    // verilator lint_on UNUSEDSIGNAL
    input  logic                       build_valid,
    output logic                       build_ready,
    input  build_t                     build,
    input  logic [ 3:0]                filled,
    output logic                       code_read,
    output logic [ 9:0]                code_at,
    input  logic [G-1:0][15:0][7:0]    codes,
    output logic                       table_we,
    output logic                       table_bank,
    output logic [ 2:0]                table_segment,
    output logic [ 1:0]                table_merge,    // of the job whose tables they are
    output logic [ 3:0]                table_at,
    output logic [G-1:0][15:0][9:0]    table_sums,
    output logic [ 1:0]                plane_full,
    output logic [ 1:0]                base_full,
    input  logic                       plane_release,
    input  logic                       plane_release_bank,
    input  logic                       base_release,
    input  logic                       base_release_bank
);
  logic codes_kind;
  logic [1:0] merge;
  ram_lut #(
      .WIDTH(3),
      .DEPTH(4)
  ) forms (
      .clk,
      .we(form_we),
      .waddr(form_slot),
      .wdata({form.kind == KIND_CODES, form.merge}),
      .raddr(build.job),
      .rdata({codes_kind, merge})
  );

  // Step n of a segment writes address gray(n); then the code of the bit in which gray(n + 1) differs goes in
  // or out.
  logic running, start, ends, step;
  logic last_segment;  // a cycle late: a segment has 16 steps
  logic [2:0] segment;
  logic [3:0] n, next;
  logic [1:0] word;
  assign next = n + 4'd1;
  assign word = next[0] ? 2'd0 : next[1] ? 2'd1 : next[2] ? 2'd2 : 2'd3;
  assign start = build_valid && !running && filled[build.job] && !plane_full[build.bank] && !base_full[build.bank];
  assign ends = running && n == 4'd15 && last_segment;
  assign build_ready = ends;
  assign code_read = running;
  assign code_at = {build.job[0], build.pass, segment, word};

  logic minus, codes_kind1, ends1, bank1;
  logic [3:0] n1;
  logic [2:0] segment1;
  always_ff @(posedge clk) begin
    if (rst) begin
      running <= 1'b0;
      step <= 1'b0;
      ends1 <= 1'b0;
      plane_full <= '0;
      base_full <= '0;
    end else begin
      if (start) running <= 1'b1;
      else if (ends) running <= 1'b0;
      step <= running;
      ends1 <= ends;
      if (plane_release) plane_full[plane_release_bank] <= 1'b0;
      if (base_release) base_full[base_release_bank] <= 1'b0;
      if (ends1) begin
        plane_full[bank1] <= 1'b1;
        base_full[bank1] <= codes_kind1;
      end
    end
    if (start) begin
      n <= '0;
      segment <= '0;
    end else if (running) begin
      n <= next;
      segment <= segment + 3'(n == 4'd15);
    end
    last_segment <= segment == segment_last(merge);
    n1 <= n;
    segment1 <= segment;
    table_merge <= merge;
    bank1 <= build.bank;
    codes_kind1 <= codes_kind;
    // The bit is set in gray(n), so it goes.
    minus <= 1'((n ^ (n >> 1)) >> word);
  end

  assign table_we = step;
  assign table_bank = bank1;
  assign table_segment = segment1;
  assign table_at = n1 ^ (n1 >> 1);

  for (genvar g = 0; g < G; ++g) begin : g_query
    table_builder builder (
        .clk,
        .clear(rst || n1 == 4'd15),
        .step,
        .minus,
        .codes(codes[g]),
        .sums(table_sums[g])
    );
  end
endmodule
