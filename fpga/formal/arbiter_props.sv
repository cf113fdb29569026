// arbiter: the grant is one of those that want, if any does; nobody that wants all the time waits for more than
// N - 1 takes of others.
module arbiter_props #(
    parameter int N = 4
) (
    input logic         clk,
    input logic         rst,
    input logic [N-1:0] want,
    input logic         take,
    input logic [N-1:0] grant,
    input logic         any,
    // A register of the module, for the invariants of the induction.
    input logic [N-1:0] later
);

  localparam int BITS = $clog2(N + 1);

  logic past = 1'b0;
  always_ff @(posedge clk) past <= 1'b1;
  always_comb if (!past) assume (rst);

  // Takes of others since one began to want; it wants until it is granted and taken.
  logic [BITS-1:0] waited[N];
  always_ff @(posedge clk) begin
    for (int n = 0; n < N; n++) begin
      if (rst || !want[n] || (take && grant[n])) waited[n] <= '0;
      else if (take) waited[n] <= waited[n] + 1'b1;
    end
  end

  always_comb begin
    assert ($onehot0(grant));
    assert ((grant & ~want) == '0);
    assert (any == (want != '0));
    assert ((grant != '0) == any);
    if (past) begin
      for (int n = 0; n < N; n++) assert (waited[n] < BITS'(N));
    end
  end

  // Invariants. `later` is what lies above the last granted one, or all. Whoever waited for w takes has at most
  // N - 1 - w others ahead of it in turn.
  logic [BITS-1:0] ahead[N];
  always_comb begin
    for (int n = 0; n < N; n++) begin
      ahead[n] = '0;
      for (int m = 0; m < N; m++) begin
        if (m != n && (later[m] == later[n] ? m < n : later[m])) ahead[n] = ahead[n] + 1'b1;
      end
    end
  end

  always_comb begin
    if (past) begin
      assert ((~later & (~later + 1'b1)) == '0);
      for (int n = 0; n < N; n++) assert (32'(waited[n]) + 32'(ahead[n]) < N);
    end
  end

endmodule

bind arbiter arbiter_props #(.N(N)) props (.*);
