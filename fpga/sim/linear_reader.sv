// A plain reader of card memory, for measurements and tests of the memory's model: each channel reads `bursts`
// bursts of 64 beats one after another, as many at once as it may, and takes what comes while `take` is 1.
// The speed of the scan is measured against it.
//
// Streams: an AXI read port a channel, with the pins of card_top. `beats` counts what has come, `sum` adds up
// its words of 64 bits, `failed` tells an error response. It begins with `start`. Nothing in it stalls.
module linear_reader #(
    parameter int CHANNELS = 2,
    parameter int OUTSTANDING = 32
) (
    input  logic                       clk,
    input  logic                       rst,
    input  logic                       start,
    input  logic [CHANNELS-1:0][ 39:0] first,
    input  logic [        31:0]        bursts,
    input  logic [CHANNELS-1:0]        take,
    output logic [CHANNELS-1:0][ 31:0] beats,
    output logic [CHANNELS-1:0][ 63:0] sum,
    output logic [CHANNELS-1:0]        failed,
    output logic [CHANNELS-1:0]        ar_valid,
    input  logic [CHANNELS-1:0]        ar_ready,
    output logic [CHANNELS-1:0][ 39:0] ar_addr,
    output logic [CHANNELS-1:0][  7:0] ar_len,
    input  logic [CHANNELS-1:0]        r_valid,
    output logic [CHANNELS-1:0]        r_ready,
    input  logic [CHANNELS-1:0][511:0] r_data,
    input  logic [CHANNELS-1:0][  1:0] r_resp,
    input  logic [CHANNELS-1:0]        r_last
);
  localparam logic [7:0] LENGTH = 8'd63;
  localparam int COUNT = $clog2(OUTSTANDING) + 1;

  for (genvar i = 0; i < CHANNELS; ++i) begin : g_channel
    logic [31:0] asked;
    logic [COUNT-1:0] open;
    logic more, ask, done;
    logic [63:0] words;

    assign r_ready[i] = take[i];
    assign ar_len[i] = LENGTH;
    assign more = start && asked != bursts && open < COUNT'(OUTSTANDING - 1);
    assign ask = ar_valid[i] && ar_ready[i];
    assign done = r_valid[i] && r_ready[i] && r_last[i];

    always_comb begin
      words = '0;
      for (int w = 0; w < 8; w++) words += r_data[i][64*w+:64];
    end

    always_ff @(posedge clk) begin
      if (rst) begin
        ar_valid[i] <= 1'b0;
        asked <= '0;
        open <= '0;
        beats[i] <= '0;
        sum[i] <= '0;
        failed[i] <= 1'b0;
      end else begin
        if (!ar_valid[i] || ar_ready[i]) begin
          ar_valid[i] <= more;
          ar_addr[i] <= first[i] + {asked[27:0], 12'd0};
          if (more) asked <= asked + 1'b1;
        end
        open <= open + COUNT'(ask) - COUNT'(done);
        if (r_valid[i] && r_ready[i]) begin
          beats[i] <= beats[i] + 1'b1;
          sum[i] <= sum[i] + words;
          if (r_resp[i] != 2'd0) failed[i] <= 1'b1;
        end
      end
    end

    axi_if #(
        .ADDRESS(40),
        .DATA(514)
    ) check (
        .clk,
        .rst,
        .a_valid(ar_valid[i]),
        .a_ready(ar_ready[i]),
        .a_addr(ar_addr[i]),
        .a_len(ar_len[i]),
        .d_valid(r_valid[i]),
        .d_ready(r_ready[i]),
        .d_data({r_resp[i], r_data[i]}),
        .d_last(r_last[i]),
        .b_valid(1'b0),
        .b_ready(1'b0)
    );
  end
endmodule
