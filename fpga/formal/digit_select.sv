// Selection by digits against its definition, for any N codes of two digits and any k: the rule by which
// select/sweep_control.sv finds the code of the last entry, and by which the collector takes entries. Code 0 is
// no entry. It has no state, so one step proves it.
module digit_select #(
    parameter int N = 4,
    parameter int D = 2   // bits of a digit; the RTL has 4
) (
    input logic [N-1:0][2*D-1:0] codes,
    input logic [3:0]            k
);

  always_comb assume (k >= 4'd1);

  // As sweep_control: from the largest value down to 1, what is not reached is left for the values below.
  logic [3:0] candidates, count, need;
  logic [2*D-1:0] known;
  logic [D-1:0] value;
  logic [3:0] bin;
  logic found;
  always_comb begin
    candidates = 4'd0;
    for (int n = 0; n < N; n++) candidates = candidates + 4'(codes[n] != '0);
    count = k < candidates ? k : candidates;
    need  = count;
    known = '0;
    for (int digit = 1; digit >= 0; digit--) begin
      found = 1'b0;
      value = '0;
      for (int v = 2 ** D - 1; v >= 1; v--) begin
        bin = 4'd0;
        for (int n = 0; n < N; n++) begin
          if (codes[n][D*digit+:D] == D'(v) && (digit == 1 || codes[n][2*D-1:D] == known[2*D-1:D])) bin = bin + 4'd1;
        end
        if (!found && bin >= need) begin
          found = 1'b1;
          value = D'(v);
        end else if (!found) begin
          need = need - bin;
        end
      end
      known[D*digit+:D] = value;
    end
  end

  // As the collector: all above the last code, and of those equal to it the first ones.
  logic [N-1:0] chosen;
  logic [3:0] left, number;
  always_comb begin
    left   = need;
    number = 4'd0;
    for (int n = 0; n < N; n++) begin
      chosen[n] = 1'b0;
      if (codes[n] != '0 && count != 4'd0) begin
        if (codes[n] > known) begin
          chosen[n] = 1'b1;
        end else if (codes[n] == known && left != 4'd0) begin
          chosen[n] = 1'b1;
          left = left - 4'd1;
        end
      end
      number = number + 4'(chosen[n]);
    end
  end

  // The definition: the `count` first ones by falling code, then by rising number.
  always_comb begin
    assert (number == count);
    for (int n = 0; n < N; n++) begin
      if (chosen[n]) assert (codes[n] != '0);
      for (int m = 0; m < N; m++) begin
        if (chosen[n] && !chosen[m]) assert (codes[n] > codes[m] || (codes[n] == codes[m] && n < m));
      end
    end
  end

endmodule
