// A queue in LUT RAM with a registered output, for payloads that need not be quick: all of them go through the RAM, so
// that its output needs no multiplexer as that of fifo.sv does, and what waits in the RAM is told by a register.
//
// Streams: in, out; order is kept and nothing is lost. It holds DEPTH payloads in all, `level` of them now.
// Latency: 2 cycles from in to out when it is empty. Stalls: in only while it holds DEPTH payloads; after a
// payload has left a full queue, in_ready follows a cycle later. DEPTH: a power of two, at least 2. Who sees to it that
// there is room (HAS_ROOM) and needs no `level` has no count in hardware.
module fifo_late #(
    parameter int WIDTH = 8,
    parameter int DEPTH = 16,
    parameter bit HAS_ROOM = 1'b0  // payloads come only while in_ready is high, which nothing looks at
) (
    input  logic                   clk,
    input  logic                   rst,
    input  logic                   in_valid,
    output logic                   in_ready,
    input  logic [      WIDTH-1:0] in_data,
    output logic                   out_valid,
    input  logic                   out_ready,
    output logic [      WIDTH-1:0] out_data,
    output logic [$clog2(DEPTH):0] level
);
  localparam int POINTER = $clog2(DEPTH);
  localparam logic [POINTER:0] FULL = (POINTER + 1)'(DEPTH);

  logic [POINTER-1:0] write_at, read_at;
  logic [WIDTH-1:0] stored;
  logic behind;  // payloads wait in the RAM: at most DEPTH - 1, for the output has the first one
  wire more = write_at != read_at + 1'b1;  // one behind the first of them does
  wire in_fire = in_valid && (HAS_ROOM || in_ready);
  wire out_fire = out_valid && out_ready;
  wire out_free = !out_valid || out_ready;
  wire take = out_free && behind;

  ram_lut #(
      .WIDTH(WIDTH),
      .DEPTH(DEPTH)
  ) store (
      .clk,
      .we(in_fire),
      .waddr(write_at),
      .wdata(in_data),
      .raddr(read_at),
      .rdata(stored)
  );

  always_ff @(posedge clk) begin
    if (rst) begin
      write_at  <= '0;
      read_at   <= '0;
      out_valid <= 1'b0;
      in_ready  <= 1'b0;
      behind    <= 1'b0;
      level     <= '0;
    end else begin
      if (in_fire && !out_fire) level <= level + 1'b1;
      if (!in_fire && out_fire) level <= level - 1'b1;
      if (out_fire) in_ready <= 1'b1;
      else if (in_fire) in_ready <= level != FULL - 1'b1;
      else in_ready <= level != FULL;
      if (in_fire) behind <= 1'b1;
      else if (take) behind <= more;
      if (out_free) out_valid <= behind;
      if (in_fire) write_at <= write_at + 1'b1;
      if (take) read_at <= read_at + 1'b1;
    end
    if (out_free) out_data <= stored;
  end

  stream_if #(
      .WIDTH(WIDTH),
      .NEVER_STALLS(HAS_ROOM)
  ) check_in (
      .clk,
      .rst,
      .valid(in_valid),
      .ready(in_ready),
      .data(in_data)
  );
  stream_if #(
      .WIDTH(WIDTH)
  ) check_out (
      .clk,
      .rst,
      .valid(out_valid),
      .ready(out_ready),
      .data(out_data)
  );
endmodule
