// Writes completions (proto/layout/completion.h) to their queues' rings: bytes 0 to 55, the last 8 right behind them, and
// the ring's head when both have their responses. The two writes of a completion have one id and one address, the
// slot's: AXI keeps them in order, and so does PCIe. A poll of the slot finds the completion before the head counts it.
//
// Streams in: `opened`, where a queue's completions stand, without a stall; descriptors whose results are handed over,
// and `responded`, when the results of the one that is taken are in host memory. Times are cycles * period / 256, at
// most 2^32 - 1; all but the select time's last cycles are ready before `responded`. The card does not look at the tail:
// a ring has as many slots as its descriptors, and a worker that submits more than it has room for overwrites its own.
// Latency: 1 cycle from `responded` to the first write, 10 from the descriptor at least. Stalls: host memory.
module completion_writer
  import mnemo_pkg::*;
  import command_types::*;
#(
    parameter int N_QUEUES = 8
) (
    input  logic                       clk,
    input  logic                       rst,
    output logic                       busy,
    output logic                       ev_refused,
    output logic        [        31:0] first_head,    // of queue 0, as host memory has it
    input  logic        [        31:0] cycle,
    input  logic        [        15:0] cycle_period,  // nanoseconds of 256 cycles
    input  queue_t      [N_QUEUES-1:0] queues,
    input  logic                       opened,
    /* verilator lint_off UNUSEDSIGNAL */  // with few queues
    input  logic        [         2:0] opened_number,
    /* verilator lint_on UNUSEDSIGNAL */
    input  logic        [        31:0] opened_head,
    input  logic                       finished_valid,
    output logic                       finished_ready,
    input  finished_t                  finished,
    input  logic                       responded,
    output logic                       write_valid,
    input  logic                       write_ready,
    output host_write_t                write,
    input  logic                       written
);
  localparam int AT = (N_QUEUES > 1) ? $clog2(N_QUEUES) : 1;

  typedef enum logic [2:0] {
    IDLE,
    TIMES,
    RESULTS,
    BODY,
    STATUS,
    HEAD
  } state_t;

  state_t state;
  logic [N_QUEUES-1:0][31:0] heads;
  logic [AT-1:0] number;
  finished_t now;
  completion_t completion;
  logic [63:0] ring;
  logic [31:0] head, slots;
  logic [31:0] slot;  // of the ring: the head's
  logic ok, stored, half;  // stored: the results have their responses; half: one of a completion's two writes has it
  logic [3:0] step;
  logic [15:0] factor;
  logic [31:0] product, cycles;
  logic [31:8] low_product;
  logic [39:0] nanoseconds;
  logic [1:0][31:0] times;
  logic [31:0] selecting;
  logic [48:0] select_time, added;  // in 256ths of a nanosecond

  assign finished_ready = state == IDLE;
  assign busy = state != IDLE;
  assign first_head = heads[0];
  assign ok = now.status == STATUS_OK;
  assign number = now.number[AT-1:0];

  // Three times, each as two products: steps 0, 1 | 2, 3 | 4, 5. The select time goes on while results wait for their
  // responses: its products, of the cycles up to step 8, come in steps 6 and 7.
  always_comb begin
    unique case (step[2:1])
      2'd0: cycles = now.queue_cycles;
      2'd1: cycles = now.score_cycles;
      default: cycles = selecting;
    endcase
    unique case (step)
      4'd6: added = {17'b0, product};
      4'd7: added = {1'b0, product, 16'b0};
      default: added = stored ? '0 : {33'b0, cycle_period};
    endcase
  end
  assign nanoseconds = {product, 8'b0} + {16'b0, low_product};
  always_ff @(posedge clk) begin
    factor      <= step[0] ? cycles[31:16] : cycles[15:0];
    product     <= factor * cycle_period;
    low_product <= product[31:8];
    if (step == 4'd2) selecting <= cycle - now.scored_at;
    if (step == 4'd3) selecting <= selecting + 32'd6;
    if (state == TIMES && step[0] && step < 4'd6)
      times <= {(nanoseconds[39:32] != '0) ? 32'hFFFF_FFFF : nanoseconds[31:0], times[1]};
    select_time <= ((step < 4'd7) ? 49'd0 : select_time) + added;
  end

  always_comb begin
    completion           = '0;
    completion.index_id  = now.index_id;
    completion.energy_uj = ENERGY_UNKNOWN;
    completion.status    = now.status;
    completion.detail    = now.detail;
    completion.seq       = now.seq;
    if (ok) begin
      completion.count         = now.count;
      completion.watermark     = now.watermark;
      completion.queue_ns      = times[0];
      completion.score_ns      = times[1];
      completion.select_ns     = (select_time[48:40] != '0) ? 32'hFFFF_FFFF : select_time[39:8];
      completion.bytes_read    = now.bytes_read;
      completion.bytes_written = now.bytes_written;
    end
  end

  always_ff @(posedge clk) begin
    ev_refused <= !rst && state == HEAD && written && !ok;
    if (rst) begin
      state       <= IDLE;
      write_valid <= 1'b0;
      half        <= 1'b0;
    end else begin
      if (write_ready) write_valid <= 1'b0;
      unique case (state)
        IDLE: begin
          step <= '0;
          if (finished_valid) state <= TIMES;
        end
        TIMES: begin
          step <= step + 1'b1;
          if (step == 4'd8) state <= RESULTS;
        end
        RESULTS: begin
          if (stored || responded) begin
            write_valid <= 1'b1;
            state       <= BODY;
          end
        end
        BODY: begin
          if (write_ready) begin
            write_valid <= 1'b1;
            state       <= STATUS;
          end
        end
        STATUS: begin
          if (written) half <= !half;
          if (written && half) begin
            write_valid <= 1'b1;
            state       <= HEAD;
          end
        end
        default: if (written) state <= IDLE;
      endcase
    end

    if (state == IDLE) now <= finished;
    if (state == IDLE) stored <= 1'b0;
    else if (responded) stored <= 1'b1;
    if (state == TIMES) begin
      ring  <= queues[number].completions;
      slots <= queues[number].slots;
      head  <= heads[number];
      slot  <= head & (slots - 32'd1);
    end
    unique case (state)
      TIMES, RESULTS: begin
        write.address <= ring + 64'(RING_HEADER_BYTES) + {26'b0, slot, 6'b0};
        write.words   <= 16'h3FFF;
        write.data    <= completion;
      end
      BODY: if (write_ready) write.words <= 16'hC000;
      STATUS:
      if (written && half) begin
        write.address <= ring + 64'(RING_AT_HEAD);
        write.words   <= 16'h0001;
        write.data    <= {480'b0, head + 32'd1};
      end
      default: ;
    endcase
    if (state == HEAD && written) heads[number] <= head + 32'd1;
    if (opened) heads[opened_number[AT-1:0]] <= opened_head;
  end
endmodule
