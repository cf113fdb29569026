// axi_if for proofs of a port's master: what the memory does is assumed, what the master does is asserted. The memory
// answers bursts that are open, in any time; its data is anything.
module axi_if #(
    parameter int ADDRESS = 40,
    parameter int DATA = 512,
    parameter int OUTSTANDING = 64,
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
  // Bursts whose address is taken, and writes whose data is, without their end.
  logic [7:0] addresses, complete;
  logic a_fire, last_fire, b_fire;
  assign a_fire = a_valid && a_ready;
  assign last_fire = d_valid && d_ready && d_last;
  assign b_fire = b_valid && b_ready;
  always_ff @(posedge clk) begin
    if (rst) begin
      addresses <= '0;
      complete  <= '0;
    end else begin
      addresses <= addresses + 8'(a_fire) - 8'(WRITE ? b_fire : last_fire);
      complete  <= complete + 8'(last_fire) - 8'(b_fire);
    end
  end
  generate
    if (WRITE) begin : g_write
      always_comb if (complete == '0 || addresses == '0) assume (!b_valid);
      stream_if #(
          .WIDTH(DATA + 1)
      ) data (
          .clk,
          .rst,
          .valid(d_valid),
          .ready(d_ready),
          .data({d_last, d_data})
      );
    end else begin : g_read
      always_comb if (addresses == '0) assume (!d_valid);
      // A beat that is not taken stands.
      logic waits, last;
      logic [DATA-1:0] held;
      always_ff @(posedge clk) begin
        waits <= !rst && d_valid && !d_ready;
        last  <= d_last;
        held  <= d_data;
      end
      always_comb if (waits) assume (d_valid && d_last == last && d_data == held);
    end
  endgenerate
  stream_if #(
      .WIDTH(ADDRESS + 8)
  ) address (
      .clk,
      .rst,
      .valid(a_valid),
      .ready(a_ready),
      .data({a_addr, a_len})
  );
  always_comb begin
    if (a_valid && !rst) begin
      assert (a_addr[5:0] == '0);
      assert (a_len <= 8'd63);
      assert (8'(a_addr[11:6]) + a_len <= 8'd63);
    end
  end
endmodule
