// The modules of fpga/rtl/base and both checkers, each on pins of its own.
module base_bench (
    input  logic         clk,
    input  logic         rst,
    // Streams: a deep queue, the smallest queue, a skid register and a late queue, fed alike.
    input  logic [  3:0] in_valid,
    output logic [  3:0] in_ready,
    input  logic [127:0] in_data[4],
    output logic [  3:0] out_valid,
    input  logic [  3:0] out_ready,
    output logic [127:0] out_data[4],
    output logic [  4:0] level,
    output logic [  1:0] small_level,
    output logic [  3:0] late_level,
    // RAMs, read and written alike.
    input  logic         re,
    input  logic [  3:0] we,
    input  logic [  5:0] waddr,
    input  logic [  5:0] raddr,
    input  logic [ 31:0] wdata,
    output logic [ 31:0] lut_data,
    output logic [ 31:0] block_data,
    output logic [ 31:0] ultra_data,
    output logic [ 31:0] first_data,  // of the port of ram_block_two that writes
    output logic [ 31:0] second_data,
    // Arbiter and counter.
    input  logic [  4:0] want,
    input  logic         take,
    output logic [  4:0] grant,
    output logic         any,
    input  logic         event_valid,
    output logic [  7:0] count,
    // Checkers.
    input  logic         s_valid,
    input  logic         s_ready,
    input  logic [  7:0] s_data,
    input  logic         a_valid,
    input  logic         a_ready,
    input  logic [ 39:0] a_addr,
    input  logic [  7:0] a_len,
    input  logic         d_valid,
    input  logic         d_ready,
    input  logic [  7:0] d_data,
    input  logic         d_last,
    input  logic         w_a_valid,
    input  logic         w_d_valid,
    input  logic         w_b_valid
);
  fifo #(.WIDTH(128), .DEPTH(16)) deep (
      .clk, .rst,
      .in_valid(in_valid[0]), .in_ready(in_ready[0]), .in_data(in_data[0]),
      .out_valid(out_valid[0]), .out_ready(out_ready[0]), .out_data(out_data[0]), .level
  );
  fifo #(.WIDTH(128), .DEPTH(2)) smallest (
      .clk, .rst,
      .in_valid(in_valid[1]), .in_ready(in_ready[1]), .in_data(in_data[1]),
      .out_valid(out_valid[1]), .out_ready(out_ready[1]), .out_data(out_data[1]), .level(small_level)
  );
  skid #(.WIDTH(128)) two_way (
      .clk, .rst,
      .in_valid(in_valid[2]), .in_ready(in_ready[2]), .in_data(in_data[2]),
      .out_valid(out_valid[2]), .out_ready(out_ready[2]), .out_data(out_data[2])
  );
  fifo_late #(.WIDTH(128), .DEPTH(8)) late (
      .clk, .rst,
      .in_valid(in_valid[3]), .in_ready(in_ready[3]), .in_data(in_data[3]),
      .out_valid(out_valid[3]), .out_ready(out_ready[3]), .out_data(out_data[3]), .level(late_level)
  );
  ram_lut #(.WIDTH(32), .DEPTH(64)) lut (.clk, .we(we[0]), .waddr, .wdata, .raddr, .rdata(lut_data));
  ram_block #(.WIDTH(32), .DEPTH(64)) blocks (.clk, .we(we[0]), .waddr, .wdata, .re, .raddr, .rdata(block_data));
  ram_ultra #(.WIDTH(32), .DEPTH(64), .GRAIN(8)) ultra (.clk, .we, .waddr, .wdata, .re, .raddr, .rdata(ultra_data));
  ram_block_two #(.WIDTH(32), .DEPTH(64)) two (
      .clk, .en(we[0] || re), .we(we[0]), .addr(we[0] ? waddr : raddr), .wdata, .rdata(first_data),
      .en2(re), .addr2(raddr), .rdata2(second_data)
  );
  arbiter #(.N(5)) turns (.clk, .rst, .want, .take, .grant, .any);
  counter #(.WIDTH(8)) events (.clk, .rst, .event_valid, .value(count));

  stream_if #(.WIDTH(8)) check_stream (.clk, .rst, .valid(s_valid), .ready(s_ready), .data(s_data));
  axi_if #(.ADDRESS(40), .DATA(8), .OUTSTANDING(4)) check_read (
      .clk, .rst, .a_valid, .a_ready, .a_addr, .a_len, .d_valid, .d_ready, .d_data, .d_last,
      .b_valid(1'b0), .b_ready(1'b0)
  );
  // Bursts of two beats, always taken.
  axi_if #(.ADDRESS(40), .DATA(8), .OUTSTANDING(4), .WRITE(1'b1)) check_write (
      .clk, .rst, .a_valid(w_a_valid), .a_ready(1'b1), .a_addr(40'd0), .a_len(8'd1),
      .d_valid(w_d_valid), .d_ready(1'b1), .d_data(8'd0), .d_last, .b_valid(w_b_valid), .b_ready(1'b1)
  );
endmodule
