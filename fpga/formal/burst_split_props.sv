// burst_split: the bursts are the run, complete, in order, none over 4 KiB, and none else; a stalled burst is
// held. The environment gives runs that end at or below 2^40 and starts only when not busy.
module burst_split_props (
    input logic        clk,
    input logic        rst,
    input logic        start,
    input logic [39:0] base,
    input logic [ 9:0] beats,
    input logic        out_valid,
    input logic        out_ready,
    input logic [39:0] out_addr,
    input logic [ 7:0] out_len,
    input logic        busy,
    // Registers of the module, for the invariants of the induction.
    input logic [33:0] at,
    input logic [ 9:0] left,
    input logic [ 6:0] room
);

  logic past = 1'b0;
  always_ff @(posedge clk) past <= 1'b1;
  always_comb if (!past) assume (rst);

  logic [34:0] end_of_run;
  assign end_of_run = {1'b0, base[39:6]} + 35'(beats);
  always_comb if (start) assume (end_of_run <= 35'h4_0000_0000);

  // Beats of the run under way that were loaded into the output register.
  logic [33:0] run_base;
  logic [9:0] run_beats, loaded;
  logic load;
  assign load = busy && (!out_valid || out_ready);
  logic [9:0] burst;
  always_comb burst = left < 10'(room) ? left : 10'(room);
  always_ff @(posedge clk) begin
    if (!busy) begin
      run_base <= base[39:6];
      run_beats <= beats;
      loaded <= 10'd0;
    end else if (load) begin
      loaded <= loaded + burst;
    end
  end

  // The burst that is expected in the output register, from the run's own data alone.
  logic expected;
  logic [33:0] expected_at;
  logic [9:0] expected_beats;
  logic [33:0] next_at;
  logic [9:0] to_edge, to_end;
  assign next_at = run_base + 34'(loaded);
  assign to_edge = 10'd64 - 10'(next_at[5:0]);
  assign to_end  = run_beats - loaded;
  always_ff @(posedge clk) begin
    if (rst) expected <= 1'b0;
    else if (load) expected <= 1'b1;
    else if (out_ready) expected <= 1'b0;
    if (load) begin
      expected_at <= next_at;
      expected_beats <= to_end < to_edge ? to_end : to_edge;
    end
  end

  logic was_busy;
  always_ff @(posedge clk) was_busy <= !rst && busy;

  always_ff @(posedge clk) begin
    if (past) begin
      assert (out_valid == expected);
      if (out_valid) begin
        assert (out_addr == {expected_at, 6'd0});
        assert (10'(out_len) + 10'd1 == expected_beats);
        assert (out_len <= 8'd63);
        assert (out_addr[39:12] == 28'((out_addr + (40'(out_len) << 6)) >> 12));
      end
      // Progress: a run that is under way loads at least one beat whenever the output is free.
      if (busy) begin
        assert (left != 10'd0);
        assert (burst != 10'd0);
        assert (11'(loaded) + 11'(left) == 11'(run_beats));
        assert (at == next_at);
        assert (room == 7'd64 - 7'(at[5:0]));
        assert ({1'b0, at} + 35'(left) <= 35'h4_0000_0000);
      end else if (was_busy) begin
        assert (loaded == run_beats);
      end
    end
  end

  // Held while stalled.
  logic was_stalled;
  logic [39:0] held_addr;
  logic [7:0] held_len;
  always_ff @(posedge clk) begin
    was_stalled <= !rst && out_valid && !out_ready;
    held_addr   <= out_addr;
    held_len    <= out_len;
    if (past && was_stalled) begin
      assert (out_valid && out_addr == held_addr && out_len == held_len);
    end
    cover (past && out_valid && out_len == 8'd63 && busy);
  end

endmodule

bind burst_split burst_split_props props (.*);
