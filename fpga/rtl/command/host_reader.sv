// The read half of the host port: shares it among MASTERS and splits their runs of beats into bursts.
//
// Streams in: a run of beats of each master, round robin; a run's ready is a register, set when the run before is split.
// Streams out: its beats in order, `data` for all, valid for the owner alone. Latency: 4 cycles from a run to its
// first address, 1 from the port to a beat. A burst has at most 64 beats and stays within 4 KiB; up to DEPTH bursts are
// open. Stalls: the port, and a master that does not take its beats, which holds up the others' as well. `stop` starts
// no burst and, from the next cycle on, takes no run and discards what still comes. An error response sets `error`
// until reset: neither its beat nor a later one is given to a master.
module host_reader
  import command_types::*;
#(
    parameter int MASTERS = 3,
    parameter int DEPTH = 16
) (
    input  logic                     clk,
    input  logic                     rst,
    input  logic                     stop,
    output logic                     open,
    output logic                     error,
    output logic                     ev_beat,
    input  logic       [MASTERS-1:0] run_valid,
    output logic       [MASTERS-1:0] run_ready,
    input  host_read_t [MASTERS-1:0] run,
    output logic       [MASTERS-1:0] beat_valid,
    input  logic       [MASTERS-1:0] beat_ready,
    output logic       [      511:0] beat,
    output logic                     ar_valid,
    input  logic                     ar_ready,
    output logic       [       63:0] ar_addr,
    output logic       [        7:0] ar_len,
    input  logic                     r_valid,
    output logic                     r_ready,
    input  logic       [      511:0] r_data,
    input  logic       [        1:0] r_resp,
    input  logic                     r_last
);
  logic [MASTERS-1:0] grant, owner, owner_of_beat;
  logic [MASTERS-1:0] turned;  // whose run is taken in this cycle
  logic any, next, take, splitting, owner_valid, owner_ready, owner_in, room;
  host_read_t chosen;
  logic [63:0] address;  // of the run's next burst
  logic [23:0] beats_less, after_less;  // beats of the run, less one
  logic ends;
  logic dropping, faulty;  // dropping: `stop` or `error`, a cycle old
  logic in_ready, out_valid, out_ready;  // beats with their owner
  logic [MASTERS-1:0] owner_out;
  logic [$clog2(DEPTH):0] level;

  arbiter #(
      .N(MASTERS)
  ) turn (
      .clk,
      .rst,
      .want(run_valid),
      .take(next),
      .grant,
      .any
  );

  assign next = turned == '0 && !splitting && !stop;
  assign take = turned != '0;
  assign run_ready = turned;

  always_comb begin
    chosen = '0;
    for (int m = 0; m < MASTERS; m++) if (turned[m]) chosen = chosen | run[m];
  end

  // The beats up to the next multiple of 4 KiB, less one, are the address's bits inverted. A burst that is not its
  // run's last one ends there.
  assign ends = beats_less[23:6] == '0 && beats_less[5:0] <= ~address[11:6];
  assign after_less = beats_less + {18'h3FFFF, address[11:6]};
  // The burst's owner is queued with its address, so that a beat finds it.
  assign owner_in = splitting && !ar_valid && room && !stop;

  always_ff @(posedge clk) begin
    if (rst) begin
      turned    <= '0;
      splitting <= 1'b0;
      ar_valid  <= 1'b0;
    end else begin
      turned <= (next && any) ? grant : '0;
      if (ar_ready) ar_valid <= 1'b0;
      if (take) splitting <= 1'b1;
      if (owner_in) begin
        ar_valid  <= 1'b1;
        splitting <= !ends;
      end
    end
    if (take) begin
      address    <= chosen.address;
      beats_less <= chosen.beats - 24'd1;
      owner      <= turned;
    end
    if (owner_in) begin
      ar_addr    <= address;
      ar_len     <= {2'b0, ends ? beats_less[5:0] : ~address[11:6]};
      address    <= {address[63:12] + 52'd1, 12'b0};
      beats_less <= after_less;
    end
  end

  fifo_late #(
      .WIDTH(MASTERS),
      .DEPTH(DEPTH)
  ) owners (
      .clk,
      .rst,
      .in_valid (owner_in),
      .in_ready (room),
      .in_data  (owner),
      .out_valid(owner_valid),
      .out_ready(owner_ready),
      .out_data (owner_of_beat),
      .level
  );

  assign faulty = r_valid && r_resp != 2'b00;
  assign r_ready = owner_valid && (in_ready || faulty);
  assign beat_valid = (out_valid && !dropping) ? owner_out : '0;
  assign out_ready = dropping || (beat_ready & owner_out) != '0;

  skid #(
      .WIDTH(MASTERS + 512)
  ) beats (
      .clk,
      .rst,
      .in_valid (r_valid && owner_valid && !faulty),
      .in_ready,
      .in_data  ({owner_of_beat, r_data}),
      .out_valid,
      .out_ready,
      .out_data ({owner_out, beat})
  );

  assign owner_ready = r_valid && r_ready && r_last;
  assign open = level != '0 || ar_valid;

  always_ff @(posedge clk) begin
    ev_beat <= !rst && r_valid && r_ready;
    dropping <= !rst && (stop || error || (faulty && owner_valid));
    if (rst) error <= 1'b0;
    else if (faulty && owner_valid) error <= 1'b1;
  end

  axi_if #(
      .ADDRESS(64),
      .DATA(514)
  ) check (
      .clk,
      .rst,
      .a_valid(ar_valid),
      .a_ready(ar_ready),
      .a_addr (ar_addr),
      .a_len  (ar_len),
      .d_valid(r_valid),
      .d_ready(r_ready),
      .d_data ({r_resp, r_data}),
      .d_last (r_last),
      .b_valid(1'b0),
      .b_ready(1'b0)
  );
endmodule
