// A checker of one direction of an AXI4 port with one id, empty for synthesis.
//
// a_*: the address channel (AR or AW). d_*: the data channel (R or W); d_data holds all that belongs to the
// beat (data, resp, strobes). b_*: the response channel of a write port; a read port ties it to 0.
// It asserts: what is valid and not taken stays as it is; a burst begins at a beat, has at most 64 beats and
// stays within 4 KiB; data comes for an open burst alone, with `last` at its last beat and nowhere else; write
// data does not run ahead of the address by more than the burst whose address is valid; a response comes for a
// write whose last beat is taken, one each; no more than OUTSTANDING bursts are open. Checks begin with the
// first reset, which must find no burst open.
module axi_if #(
    parameter int ADDRESS = 40,
    parameter int DATA = 512,
    parameter int OUTSTANDING = 64,  // a power of two
    parameter bit WRITE = 1'b0
) (
    input logic               clk,
    input logic               rst,
    input logic               a_valid,
    input logic               a_ready,
    input logic [ADDRESS-1:0] a_addr,
    input logic [        7:0] a_len,
    input logic               d_valid,
    input logic               d_ready,
    input logic [   DATA-1:0] d_data,
    input logic               d_last,
    input logic               b_valid,
    input logic               b_ready
);
  stream_if #(.WIDTH(ADDRESS + 8)) check_a (.clk, .rst, .valid(a_valid), .ready(a_ready), .data({a_addr, a_len}));
  stream_if #(.WIDTH(DATA + 1)) check_d (.clk, .rst, .valid(d_valid), .ready(d_ready), .data({d_last, d_data}));
  stream_if #(.WIDTH(1)) check_b (.clk, .rst, .valid(b_valid), .ready(b_ready), .data(1'b0));

`ifdef FORMAL
`define MNEMO_AXI_CHECKS
`endif
`ifndef SYNTHESIS
`define MNEMO_AXI_CHECKS
`endif

`ifdef MNEMO_AXI_CHECKS
  localparam int POINTER = $clog2(OUTSTANDING);

  logic armed = 1'b0;
  logic [7:0] lengths[OUTSTANDING];  // of bursts whose address is taken and whose data is not complete
  logic [POINTER:0] addresses, bursts, responses;  // counts: addresses taken, bursts of data, responses
  logic [7:0] beats;  // of the present burst of data
  logic open, ahead, a_fire, d_fire, b_fire;
  logic [7:0] length;
  logic [POINTER:0] waiting, complete;

  assign a_fire = a_valid && a_ready;
  assign d_fire = d_valid && d_ready;
  assign b_fire = b_valid && b_ready;
  assign ahead = WRITE && bursts == addresses + 1'b1;  // all of the data is taken, its address is not
  assign waiting = addresses - (WRITE ? responses : bursts);
  assign open = (bursts != addresses && !ahead) || (WRITE && !ahead && a_valid);
  assign length = (bursts != addresses) ? lengths[bursts[POINTER-1:0]] : a_len;
  assign complete = (ahead ? addresses : bursts) - responses;

  always_ff @(posedge clk) begin
    if (rst) begin
      armed     <= 1'b1;
      addresses <= '0;
      bursts    <= '0;
      responses <= '0;
      beats     <= '0;
    end else if (armed) begin
      if (a_fire) begin
        lengths[addresses[POINTER-1:0]] <= a_len;
        addresses                       <= addresses + 1'b1;
      end
      if (d_fire) begin
        beats <= d_last ? '0 : beats + 1'b1;
        if (d_last) bursts <= bursts + 1'b1;
      end
      if (b_fire) responses <= responses + 1'b1;

      assert (!a_valid || a_addr[5:0] == '0)
      else $error("%m: a burst begins within a beat");
      assert (!a_valid || a_len <= 8'd63)
      else $error("%m: a burst has more than 64 beats");
      assert (!a_valid || {2'b0, a_addr[11:6]} + {1'b0, a_len[6:0]} <= 8'd63)
      else $error("%m: a burst crosses 4 KiB");
      assert (!a_fire || waiting < (POINTER + 1)'(OUTSTANDING))
      else $error("%m: more than %0d bursts are open", OUTSTANDING);
      assert (!d_valid || open)
      else $error("%m: data without an open burst");
      assert (!d_valid || !open || d_last == (beats == length))
      else $error("%m: last is not at the last beat");
      assert (!b_valid || (WRITE && complete != '0))
      else $error("%m: a response without a complete write");
    end
  end
`endif
`undef MNEMO_AXI_CHECKS
endmodule
