// The write half of the host port: shares it among MASTERS, one beat a burst.
//
// Streams in: a beat or a part of it of each master, round robin; a master's turn is a register, its ready, so that a
// write is taken in every second cycle at most. `done` of a master: one of its writes has its response; they come in
// order. Latency: 2 cycles from a write to its address and data. Stalls: the port, and DEPTH writes without a response.
// `stop` starts nothing new: address and data that are valid stay until the port takes them. An error response sets
// `error` until reset, and its write is never done. A write whose turn comes in the first cycle of either is dropped.
module host_writer
  import command_types::*;
#(
    parameter int MASTERS = 3,
    parameter int DEPTH = 64
) (
    input  logic                      clk,
    input  logic                      rst,
    input  logic                      stop,
    output logic                      open,
    output logic                      error,
    output logic        [        4:0] ev_words,     // of 4 bytes, that the port took, 2 cycles later
    input  logic        [MASTERS-1:0] write_valid,
    output logic        [MASTERS-1:0] write_ready,
    input  host_write_t [MASTERS-1:0] write,
    output logic        [MASTERS-1:0] done,
    output logic                      aw_valid,
    input  logic                      aw_ready,
    output logic        [       63:0] aw_addr,
    output logic        [        7:0] aw_len,
    output logic                      w_valid,
    input  logic                      w_ready,
    output logic        [      511:0] w_data,
    output logic        [       63:0] w_strb,
    output logic                      w_last,
    input  logic                      b_valid,
    output logic                      b_ready,
    input  logic        [        1:0] b_resp
);
  logic [MASTERS-1:0] grant, owner;
  logic [MASTERS-1:0] granted;  // whose write is taken in this cycle: there is room for it
  logic any, next, take, room, owner_valid;
  host_write_t chosen;
  logic [15:0] words;
  logic [3:0][2:0] counts;  // of 4 words each
  logic [$clog2(DEPTH):0] level;

  arbiter #(
      .N(MASTERS)
  ) turn (
      .clk,
      .rst,
      .want(write_valid),
      .take(next),
      .grant,
      .any
  );

  assign next = granted == '0 && room && !stop && !error && (!aw_valid || aw_ready) && (!w_valid || w_ready);
  assign write_ready = granted;
  assign take = granted != '0 && !stop && !error;

  always_comb begin
    chosen = '0;
    for (int m = 0; m < MASTERS; m++) if (granted[m]) chosen = chosen | write[m];
    for (int i = 0; i < 64; i++) w_strb[i] = words[i/4];
  end

  always_ff @(posedge clk) begin
    if (rst) begin
      granted  <= '0;
      aw_valid <= 1'b0;
      w_valid  <= 1'b0;
    end else begin
      granted <= (next && any) ? grant : '0;
      if (aw_ready) aw_valid <= 1'b0;
      if (w_ready) w_valid <= 1'b0;
      if (take) begin
        aw_valid <= 1'b1;
        w_valid  <= 1'b1;
      end
    end
    if (take) begin
      aw_addr <= chosen.address;
      w_data  <= chosen.data;
      words   <= chosen.words;
    end
  end
  assign aw_len = 8'd0;
  assign w_last = 1'b1;

  fifo #(
      .WIDTH(MASTERS),
      .DEPTH(DEPTH)
  ) owners (
      .clk,
      .rst,
      .in_valid (take),
      .in_ready (room),
      .in_data  (granted),
      .out_valid(owner_valid),
      .out_ready(b_valid),
      .out_data (owner),
      .level
  );

  assign b_ready = owner_valid;
  assign open = level != '0 || aw_valid || w_valid;

  always_ff @(posedge clk) begin
    done <= (!rst && b_valid && b_ready && b_resp == 2'b00 && !error) ? owner : '0;
    if (rst) error <= 1'b0;
    else if (b_valid && b_ready && b_resp != 2'b00) error <= 1'b1;
  end

  always_ff @(posedge clk) begin
    for (int i = 0; i < 4; i++) counts[i] <= (!rst && w_valid && w_ready) ? 3'($countones(words[4*i+:4])) : 3'd0;
    ev_words <= rst ? 5'd0 : (5'(counts[0]) + 5'(counts[1])) + (5'(counts[2]) + 5'(counts[3]));
  end

  axi_if #(
      .ADDRESS(64),
      .DATA(576),
      .WRITE(1'b1)
  ) check (
      .clk,
      .rst,
      .a_valid(aw_valid),
      .a_ready(aw_ready),
      .a_addr (aw_addr),
      .a_len  (aw_len),
      .d_valid(w_valid),
      .d_ready(w_ready),
      .d_data ({w_strb, w_data}),
      .d_last (w_last),
      .b_valid(b_valid),
      .b_ready(b_ready)
  );
endmodule
