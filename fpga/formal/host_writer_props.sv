// host_writer: `open` is low only when no write is open and neither address nor data is valid, so that a reset that
// waits for it leaves no transaction; with `stop` nothing begins. `done` comes for a write that has its response.
module host_writer_props
  import command_types::*;
#(
    parameter int MASTERS = 3,
    parameter int DEPTH   = 32
) (
    input logic                      clk,
    input logic                      rst,
    input logic                      stop,
    input logic                      open,
    input logic        [MASTERS-1:0] write_ready,
    input host_write_t [MASTERS-1:0] write,
    input logic        [MASTERS-1:0] write_valid,
    input logic        [MASTERS-1:0] done,
    input logic                      aw_valid,
    input logic                      aw_ready,
    input logic                      w_valid,
    input logic                      w_ready,
    input logic                      b_valid,
    input logic                      b_ready,
    // Registers of the module, for the invariants of the induction.
    input logic [$clog2(DEPTH):0]    level,
    input logic                      owner_valid,
    input logic                      room,
    input logic        [MASTERS-1:0] granted,
    input logic        [        7:0] addresses,
    input logic        [        7:0] complete
);
  logic past = 1'b0;
  always_ff @(posedge clk) past <= 1'b1;
  always_comb if (!past) assume (rst);

  for (genvar m = 0; m < MASTERS; m++) begin : g_write
    always_comb if (write_valid[m]) assume (write[m].address[5:0] == '0);
  end

  // A write that is not taken stands.
  logic [MASTERS-1:0] write_q;
  always_ff @(posedge clk) write_q <= (rst || !past) ? '0 : write_valid & ~write_ready;
  always_comb assume ((write_q & ~write_valid) == '0);

  logic stop_q, aw_q, w_q, open_q, b_q;
  logic began = 1'b0;
  always_ff @(posedge clk) begin
    began  <= past && !rst;
    stop_q <= stop && !rst && past;
    aw_q   <= aw_valid && !aw_ready;
    w_q    <= w_valid && !w_ready;
    open_q <= open;
    b_q    <= b_valid && b_ready;
  end

  always_comb begin
    if (past && !rst) begin
      // The queue of owners holds an entry for each write without a response.
      assert (8'(level) == addresses + 8'(aw_valid));
      assert (8'(level) == complete + 8'(w_valid));
      assert (32'(addresses) <= DEPTH && 32'(complete) <= DEPTH);
      assert (owner_valid == (level != '0));
      assert (open == (addresses != '0 || complete != '0 || aw_valid || w_valid));
      if (b_valid) assert (b_ready);
      if (granted != '0) assert (room && !aw_valid && !w_valid);
      assert ((granted & ~write_valid) == '0);
      assert ((write_ready & ~write_valid) == '0);
      if (stop_q) assert (write_ready == '0);
      if (stop_q && aw_valid) assert (aw_q);
      if (stop_q && w_valid) assert (w_q);
      if (stop_q && began && !open_q) assert (!open);
      if (done != '0) assert (b_q);
    end
  end
  always_comb cover (past && !rst && 32'(level) == DEPTH && stop);
endmodule

bind host_writer host_writer_props #(
    .MASTERS(MASTERS),
    .DEPTH(DEPTH)
) props (
    .*,
    .addresses(check.addresses),
    .complete(check.complete)
);
