// descriptor_check with the parts of its input as ports of their own.
module check_bench
  import mnemo_pkg::*;
  import command_types::*;
#(
    parameter int CHANNELS = 2,
    parameter int G = 4,
    parameter int BANK_WORDS = 64
) (
    input  logic         clk,
    input  logic         rst,
    input  logic         valid,
    output logic         ready,
    input  logic [511:0] descriptor,
    input  logic [767:0] regs,
    input  logic [ 31:0] next_seq,
    input  logic [511:0] index,
    input  logic [ 31:0] tokens,
    output logic         verdict_valid,
    input  logic         verdict_ready,
    output logic [ 15:0] status,
    output logic [ 15:0] detail,
    output logic [ 23:0] payload_block,
    output logic [ 23:0] result_block,
    output logic         long_scan
);
  fetched_t fetched;
  block_units_t block;
  always_comb begin
    fetched                  = '0;
    fetched.tokens           = tokens;
    fetched.index            = card_index_t'(index);
    fetched.taken.next_seq   = next_seq;
    fetched.taken.regs       = queue_t'(regs);
    fetched.taken.descriptor = descriptor_t'(descriptor);
  end
  assign payload_block = block.payload_block;
  assign result_block  = block.result_block;
  assign long_scan     = block.long_scan;

  descriptor_check #(
      .CHANNELS(CHANNELS),
      .G(G),
      .BANK_WORDS(BANK_WORDS)
  ) check (
      .clk,
      .rst,
      .fetched_valid(valid),
      .fetched_ready(ready),
      .fetched,
      .verdict_valid,
      .verdict_ready,
      .status,
      .detail,
      .block
  );
endmodule
