// A queue in LUT RAM with a registered output, for payloads that need not be quick: each one passes through
// the RAM, so no multiplexer stands before the output.
//
// Streams: in, out; order is kept and nothing is lost. It holds DEPTH + 1 payloads in all. Latency: 2 cycles
// from in to out when it is empty. Stalls: in only while the RAM holds DEPTH payloads; in_ready follows a cycle
// after one has left it. DEPTH: a power of two, at least 2.
module queue #(
    parameter int WIDTH = 8,
    parameter int DEPTH = 16
) (
    input  logic             clk,
    input  logic             rst,
    input  logic             in_valid,
    output logic             in_ready,
    input  logic [WIDTH-1:0] in_data,
    output logic             out_valid,
    input  logic             out_ready,
    output logic [WIDTH-1:0] out_data
);
  localparam int POINTER = $clog2(DEPTH);

  logic [POINTER-1:0] write_at, read_at;
  logic [WIDTH-1:0] stored;
  logic [POINTER:0] waiting;  // payloads in the RAM
  logic behind, in_fire, out_free, take;

  assign in_fire = in_valid && in_ready;
  assign out_free = !out_valid || out_ready;
  assign take = out_free && behind;

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
      waiting   <= '0;
      behind    <= 1'b0;
      in_ready  <= 1'b0;
      out_valid <= 1'b0;
    end else begin
      if (in_fire && !take) waiting <= waiting + 1'b1;
      if (!in_fire && take) waiting <= waiting - 1'b1;
      if (in_fire) behind <= 1'b1;
      else if (take) behind <= waiting != (POINTER + 1)'(1);
      if (take) in_ready <= 1'b1;
      else if (in_fire) in_ready <= waiting != (POINTER + 1)'(DEPTH - 1);
      else in_ready <= !waiting[POINTER];
      if (out_free) out_valid <= behind;
      if (in_fire) write_at <= write_at + 1'b1;
      if (take) read_at <= read_at + 1'b1;
    end
    if (out_free) out_data <= stored;
  end

  stream_if #(
      .WIDTH(WIDTH)
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
