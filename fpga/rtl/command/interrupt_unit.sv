// The registers of interrupts (proto/layout/card.h), and the line.
//
// The host asks for one interrupt by writing Await, with the number of completions of queue 0 that it has taken. The
// status rises as soon as the queue's head is beyond that, or the card has failed, whether that happened before the
// write or happens after it. So the host need not look again between asking and sleeping. It may have taken one more
// than the head counts, whose write is under way: that is no news. What Enable leaves out is not raised, and the question
// stays. Streams: writes of registers, `write` for one cycle; no stalls. Latency: a write 1 cycle, from the head to the
// line 3 cycles.
module interrupt_unit
  import mnemo_pkg::*;
(
    input  logic        clk,
    input  logic        rst,
    input  logic        write,
    input  logic [11:0] write_at,
    input  logic [31:0] data,
    input  logic        queue_enabled,  // queue 0
    input  logic        queue_opened,   // its head is known
    input  logic [31:0] head,           // of its completions, as host memory has it
    input  logic        failed,
    output logic        used,           // Global
    output logic [ 1:0] enable,
    output logic [ 1:0] status,
    output logic        irq
);
  logic [31:0] awaited;
  /* verilator lint_off UNUSEDSIGNAL */  // the sign tells which is larger
  logic [31:0] missing;
  /* verilator lint_on UNUSEDSIGNAL */
  logic asked, known, beyond, compared;
  logic write_await;
  logic [1:0] news, cleared;

  assign missing     = awaited - head;
  assign write_await = write && write_at == CARD_REG_AWAIT[11:0];
  assign cleared     = (write && write_at == CARD_REG_INTERRUPT_STATUS[11:0]) ? data[1:0] : 2'b00;
  assign news        = (asked && compared) ? {failed, beyond} & enable : 2'b00;

  always_ff @(posedge clk) begin
    if (rst) begin
      used      <= 1'b0;
      enable    <= '0;
      status    <= '0;
      irq       <= 1'b0;
      asked     <= 1'b0;
      known     <= 1'b0;
      beyond    <= 1'b0;
    end else begin
      if (write && write_at == CARD_REG_INTERRUPT_GLOBAL[11:0]) used <= data[0];
      if (write && write_at == CARD_REG_INTERRUPT_ENABLE[11:0]) enable <= data[1:0];
      status    <= (status & ~cleared) | news;
      irq       <= used && status != '0;
      known     <= queue_enabled && (known || queue_opened);
      beyond    <= known && missing[31];
      if (write_await) asked <= 1'b1;
      else if (news != '0) asked <= 1'b0;
    end
    compared <= !write_await;  // `beyond` is of this question
    if (write_await) awaited <= data;
  end
endmodule
