// queue_poller alone, with what its tests set of the queues as ports of their own. The rings of queue q lie at
// (q + 1) << 20, with `elsewhere` 1 GiB above; the completions of a ring half of that step behind it.
module poller_bench
  import mnemo_pkg::*;
  import command_types::*;
#(
    parameter int N_QUEUES = 8
) (
    input  logic                      clk,
    input  logic                      rst,
    input  logic                      run,
    input  logic                      quiet,
    input  logic [N_QUEUES-1:0]       enable,
    input  logic [N_QUEUES-1:0]       poll,
    input  logic [N_QUEUES-1:0]       elsewhere,
    input  logic [N_QUEUES-1:0][31:0] head,
    input  logic [        31:0]       slots,
    output logic [N_QUEUES-1:0]       broken,
    output logic                      busy,
    output logic                      reading,
    output logic                      pending,
    output logic                      opened,
    output logic [         2:0]       opened_number,
    output logic [         1:0]       read_valid,
    input  logic [         1:0]       read_ready,
    output logic [         1:0][63:0] read_address,
    input  logic [         1:0]       beat_valid,
    output logic [         1:0]       beat_ready,
    input  logic [       511:0]       beat,
    output logic                      write_valid,
    input  logic                      write_ready,
    output logic [        63:0]       write_address,
    output logic [        31:0]       write_word,
    output logic                      taken_valid,
    input  logic                      taken_ready,
    output logic [         2:0]       taken_number,
    output logic [        31:0]       taken_seq,
    output logic [        31:0]       taken_next_seq
);
  queue_t [N_QUEUES-1:0] queues;
  host_read_t [1:0] read;
  host_write_t write;
  taken_t taken;

  always_comb begin
    queues = '0;
    for (int q = 0; q < N_QUEUES; q++) begin
      queues[q].enable      = 32'(enable[q]);
      queues[q].poll        = 32'(poll[q]);
      queues[q].head        = head[q];
      queues[q].slots       = slots;
      queues[q].ring        = {33'b0, elsewhere[q], 10'(q + 1), 20'b0};
      queues[q].completions = {33'b0, elsewhere[q], 10'(q + 1), 20'h80000};
    end
  end
  assign read_address   = {read[1].address, read[0].address};
  assign write_address  = write.address;
  assign write_word     = write.data[31:0];
  assign taken_number   = taken.number;
  assign taken_seq      = taken.descriptor.seq;
  assign taken_next_seq = taken.next_seq;

  queue_poller #(
      .N_QUEUES(N_QUEUES)
  ) dut (
      .cycle(32'd0),
      .depth(),
      .opened_head(),
      .*
  );
endmodule
