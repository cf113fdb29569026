// A queue in LUT RAM with a registered output.
//
// Streams: in, out; order is kept and nothing is lost. It holds DEPTH payloads in all, `level` of them now.
// Latency: 1 cycle from in to out when it is empty. Stalls: in only while it holds DEPTH payloads; after a
// payload has left a full queue, in_ready follows a cycle later. DEPTH: a power of two, at least 2. Who sees to it that
// there is room (HAS_ROOM) and needs no `level` has no count in hardware.
module fifo #(
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
  logic in_fire, out_fire, out_free, behind;  // behind: payloads wait in the RAM
  logic [POINTER:0] level_next;

  assign in_fire  = in_valid && (HAS_ROOM || in_ready);
  assign out_fire = out_valid && out_ready;
  assign out_free = !out_valid || out_ready;

  always_comb begin
    level_next = level;
    if (in_fire && !out_fire) level_next = level + 1'b1;
    if (!in_fire && out_fire) level_next = level - 1'b1;
  end

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

  // The RAM is passed by when nothing waits in it: then its pointers do not move.
  assign behind = write_at != read_at;

  always_ff @(posedge clk) begin
    if (rst) begin
      write_at  <= '0;
      read_at   <= '0;
      out_valid <= 1'b0;
      in_ready  <= 1'b0;
      level     <= '0;
    end else begin
      in_ready <= level_next != FULL;
      level    <= level_next;
      if (out_free) out_valid <= behind || in_fire;
      if (in_fire && (behind || !out_free)) write_at <= write_at + 1'b1;
      if (out_free && behind) read_at <= read_at + 1'b1;
    end
    if (out_free) out_data <= behind ? stored : in_data;
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
