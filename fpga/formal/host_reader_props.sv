// host_reader: `open` is low only when no burst is open and no address is valid, so that a reset that waits for it
// leaves no transaction; with `stop` nothing begins, from the next cycle on no beat is given to a master, and from the one
// after it on whatever the memory answers is taken. No beat with an error is given to a master, nor a later one. Bursts stay within 4 KiB. Runs are
// aligned and not empty, and stand until they are taken, as their masters make them.
module host_reader_props
  import command_types::*;
#(
    parameter int MASTERS = 3,
    parameter int DEPTH   = 32
) (
    input logic                     clk,
    input logic                     rst,
    input logic                     stop,
    input logic                     open,
    input logic                     error,
    input logic       [MASTERS-1:0] run_valid,
    input logic       [MASTERS-1:0] run_ready,
    input host_read_t [MASTERS-1:0] run,
    input logic       [MASTERS-1:0] beat_valid,
    input logic                     ar_valid,
    input logic                     ar_ready,
    input logic                     r_valid,
    input logic                     r_ready,
    input logic       [        1:0] r_resp,
    input logic                     r_last,
    // Registers of the module, for the invariants of the induction.
    input logic [$clog2(DEPTH):0]   level,
    input logic                     owner_valid,
    input logic                     owner_in,
    input logic                     dropping,
    input logic                     in_ready,
    input logic                     beat_in,
    input logic       [MASTERS-1:0] turned,
    input logic                     splitting,
    input logic       [       63:0] address,
    input logic       [        7:0] addresses
);
  logic past = 1'b0;
  always_ff @(posedge clk) past <= 1'b1;
  always_comb if (!past) assume (rst);

  for (genvar m = 0; m < MASTERS; m++) begin : g_run
    always_comb if (run_valid[m]) assume (run[m].address[5:0] == '0 && run[m].beats != '0);
  end

  // A run that is not taken stands.
  logic [MASTERS-1:0] run_q;
  always_ff @(posedge clk) run_q <= (rst || !past) ? '0 : run_valid & ~run_ready;
  always_comb assume ((run_q & ~run_valid) == '0);

  logic stop_q, stop_qq, dropping_q, ar_q, open_q, owner_in_q;
  logic began = 1'b0;
  always_ff @(posedge clk) begin
    began  <= past && !rst;
    stop_q <= stop && !rst && past;
    stop_qq <= stop_q && !rst;
    dropping_q <= dropping && !rst && past;
    ar_q   <= ar_valid && !ar_ready;
    open_q <= open;
    owner_in_q <= owner_in && !rst && past;
  end

  always_comb begin
    if (past && !rst) begin
      // The queue of owners holds an entry for each burst that the memory owes, and one for a valid address.
      assert (8'(level) == addresses + 8'(ar_valid));
      assert (32'(addresses) <= DEPTH);
      assert (!owner_valid || level != '0);
      assert (!owner_in_q || ar_valid);
      assert (owner_valid || addresses == '0);
      if (error || stop_q) assert (dropping);
      assert ((turned & ~run_valid) == '0);
      assert ((run_ready & ~run_valid) == '0);
      assert (open == (addresses != '0 || ar_valid));
      if (splitting) assert (address[5:0] == '0);
      if (stop_q && stop_qq && r_valid) assert (r_ready);
      if (dropping && dropping_q) assert (in_ready);
      if (r_valid && r_resp != '0) assert (!beat_in);
      if (stop_q) assert (run_ready == '0);
      if (stop_q || error) assert (beat_valid == '0);
      if (stop_q && ar_valid) assert (ar_q);
      if (stop_q && began && !open_q) assert (!open);
    end
  end
  always_comb cover (past && !rst && 32'(level) == DEPTH && stop);
endmodule

bind host_reader host_reader_props #(
    .MASTERS(MASTERS),
    .DEPTH(DEPTH)
) props (
    .*,
    .beat_in(beats.in_valid),
    .addresses(check.addresses)
);
