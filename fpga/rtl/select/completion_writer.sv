// Writes completions (proto/layout/completion.h) to their queues' rings: bytes 0 to 55, the last 8 right behind them, and
// the ring's head when both have their responses. The two writes of a completion have one id and one address, the
// slot's: AXI keeps them in order, and so does PCIe.
//
// Streams in: `opened`, where a queue's completions stand, without a stall; descriptors whose results are written.
// Times are cycles * period / 256, at most 2^32 - 1. The card does not look at the tail: a ring has as many slots as
// its descriptors, and a worker that submits more than it has room for overwrites its own.
// Latency: 10 cycles to the first write. Stalls: host memory.
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
    output logic                       write_valid,
    input  logic                       write_ready,
    output host_write_t                write,
    input  logic                       written
);
  localparam int AT = (N_QUEUES > 1) ? $clog2(N_QUEUES) : 1;

  typedef enum logic [2:0] {
    IDLE,
    TIMES,
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
  logic sent, ok, half;  // half: one of a completion's two writes has its response
  logic [3:0] step;
  logic [15:0] factor;
  logic [31:0] product, cycles;
  logic [31:8] low_product;
  logic [39:0] nanoseconds;
  logic [2:0][31:0] times;

  assign finished_ready = state == IDLE;
  assign busy = state != IDLE;
  assign first_head = heads[0];
  assign ok = now.status == STATUS_OK;
  assign number = now.number[AT-1:0];

  // Three times, each as two products: steps 0, 1 | 2, 3 | 4, 5.
  always_comb begin
    unique case (step[2:1])
      2'd0: cycles = now.queue_cycles;
      2'd1: cycles = now.score_cycles;
      default: cycles = now.select_cycles;
    endcase
  end
  assign nanoseconds = {product, 8'b0} + {16'b0, low_product};
  always_ff @(posedge clk) begin
    factor      <= step[0] ? cycles[31:16] : cycles[15:0];
    product     <= factor * cycle_period;
    low_product <= product[31:8];
    if (state == TIMES && step[0])
      times <= {(nanoseconds[39:32] != '0) ? 32'hFFFF_FFFF : nanoseconds[31:0], times[2:1]};
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
      completion.select_ns     = times[2];
      completion.bytes_read    = now.bytes_read;
      completion.bytes_written = now.bytes_written;
    end
  end

  always_ff @(posedge clk) begin
    ev_refused <= !rst && state == HEAD && written && !ok;
    if (rst) begin
      state       <= IDLE;
      write_valid <= 1'b0;
      sent        <= 1'b0;
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
          if (step == 4'd8) state <= BODY;
        end
        default: begin
          write_valid <= !sent;
          sent        <= 1'b1;
          if (write_valid && !write_ready) write_valid <= 1'b1;
          if (state == STATUS && written) half <= !half;
          if ((state == BODY) ? write_valid && write_ready : written && (state == HEAD || half)) begin
            sent  <= 1'b0;
            state <= (state == BODY) ? STATUS : (state == STATUS) ? HEAD : IDLE;
          end
        end
      endcase
    end

    if (state == IDLE) now <= finished;
    if (state == TIMES) begin
      ring  <= queues[number].completions;
      slots <= queues[number].slots;
      head  <= heads[number];
      slot  <= head & (slots - 32'd1);
    end
    if (!sent) begin
      unique case (state)
        HEAD: begin
          write.address <= ring + 64'(RING_AT_HEAD);
          write.words   <= 16'h0001;
          write.data    <= {480'b0, head + 32'd1};
        end
        default: begin
          write.address <= ring + 64'(RING_HEADER_BYTES) + {26'b0, slot, 6'b0};
          write.words   <= (state == STATUS) ? 16'hC000 : 16'h3FFF;
          write.data    <= completion;
        end
      endcase
    end
    if (state == HEAD && written) heads[number] <= head + 32'd1;
    if (opened) heads[opened_number[AT-1:0]] <= opened_head;
  end
endmodule
