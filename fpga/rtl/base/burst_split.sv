// Splits a run of beats into AXI bursts: together exactly the run, in order, each within 4 KiB and so of at
// most 64 beats.
//
// Streams: a cycle with `start` and without `busy` takes a run of `beats` beats of 64 bytes from `base` on;
// bits 5 to 0 of `base` do not count, and a run of no beats gives no burst. The run must end at or below
// 2^40. Then come its bursts on `out`: out_addr in bytes, out_len as AXI has it (beats - 1).
// Latency: two cycles from `start` to the first out_valid, then a burst a cycle. `busy` is low as soon as the
// last burst of a run is in the output register, so a burst that waits there does not delay the next run.
// Stalls: out_ready alone. No function of proto/layout equals it.
module burst_split (
    input  logic        clk,
    input  logic        rst,
    input  logic        start,
    // A run begins at a whole beat, so not all bits are used.
    // verilator lint_off UNUSEDSIGNAL
    input  logic [39:0] base,
    // verilator lint_on UNUSEDSIGNAL
    input  logic [ 9:0] beats,
    output logic        out_valid,
    input  logic        out_ready,
    output logic [39:0] out_addr,
    output logic [ 7:0] out_len,
    output logic        busy
);

  logic [33:0] at;  // the next burst's first beat
  logic [ 9:0] left;  // beats from `at` on; above 0 while busy
  logic [ 6:0] room;  // beats from `at` to the next multiple of 4 KiB

  logic [ 6:0] length;
  logic        ends;
  logic        load;
  assign ends   = left <= 10'(room);
  assign length = ends ? left[6:0] : room;
  assign load   = busy && (!out_valid || out_ready);

  always_ff @(posedge clk) begin
    if (rst) begin
      busy <= 1'b0;
      out_valid <= 1'b0;
    end else begin
      if (!busy) begin
        busy <= start && beats != 10'd0;
      end else if (load) begin
        busy <= !ends;
      end
      if (load) out_valid <= 1'b1;
      else if (out_ready) out_valid <= 1'b0;
    end
  end

  always_ff @(posedge clk) begin
    if (!busy) begin
      at   <= base[39:6];
      left <= beats;
      room <= 7'd64 - 7'(base[11:6]);
    end else if (load) begin
      // Each burst but the last ends at a multiple of 4 KiB.
      at   <= {at[33:6] + 28'd1, 6'd0};
      left <= left - 10'(length);
      room <= 7'd64;
    end
    if (load) begin
      out_addr <= {at, 6'd0};
      out_len  <= 8'(length) - 8'd1;
    end
  end

endmodule
