// plane_unit: what a simulator runs (MERGED 1) gives the sums of what is synthesised (MERGED 0), for all entries that are
// written and whatever is looked up.
//
// A lookup reads one address of each table. `chosen` is any such choice, the same for all time: the sums of a lookup of
// these addresses are equal, so those of every lookup are.
module plane_unit_forms #(
    parameter int G = 2
) (
    input logic                    clk,
    input logic                    we,
    input logic                    write_bank,
    input logic [ 3:0]             write_at,
    input logic [G-1:0][15:0][9:0] write_sums,
    input logic                    valid,
    input logic                    bank,
    input logic [63:0]             bits,
    input logic [15:0][4:0]        chosen  // one address of each table, the same for all time
);

  logic [G-1:0][13:0] sums, sums_apart;
  plane_unit #(
      .G(G),
      .MERGED(1)
  ) merged (
      .*
  );
  plane_unit #(
      .G(G),
      .MERGED(0)
  ) apart (
      .*,
      .sums(sums_apart)
  );

  // Whether the chosen entries are written, and a lookup of just these, which goes on.
  logic past = 1'b0;
  logic [15:0][4:0] chosen_before;
  logic [15:0] known;
  logic of_chosen, known1, known2, known3;
  always_comb begin
    of_chosen = valid && known == '1;
    for (int i = 0; i < 16; ++i) of_chosen = of_chosen && {bank, bits[4*i+:4]} == chosen[i];
  end
  always_ff @(posedge clk) begin
    past <= 1'b1;
    chosen_before <= chosen;
    for (int i = 0; i < 16; ++i) known[i] <= past && (known[i] || we && {write_bank, write_at} == chosen[i]);
    known1 <= past && of_chosen;
    known2 <= past && known1;
    known3 <= past && known2;
  end
  always_comb if (past) assume (chosen == chosen_before);

  for (genvar g = 0; g < G; ++g) begin : g_query
    for (genvar i = 0; i < 16; ++i) begin : g_table
      always_comb begin
        if (past && known[i]) begin
          assert (merged.g_merged.words[chosen[i]][i][g] ==
                  {6'd0, apart.g_apart.g_table[i].table_of_sums.words[chosen[i]][10*g+:10] ^ 10'h200});
        end
      end
    end
    for (genvar i = 0; i < 8; ++i) begin : g_pair
      always_comb begin
        if (past && known1) begin
          assert (merged.g_merged.g_pair[i].of_two[g] == 16'(apart.g_apart.pair[g][i]) + 16'd1024);
        end
      end
    end
    always_comb begin
      if (past) begin
        assert (!known1 || merged.valid1 && apart.valid1);
        assert (!known2 || merged.valid2 && apart.valid2);
        assert (!known2 || merged.g_merged.half0[g] == 16'(apart.g_apart.half[g][0]) + 16'd4096);
        assert (!known2 || merged.g_merged.half1[g] == 16'(apart.g_apart.half[g][1]) + 16'd4096);
        assert (!known3 || merged.g_merged.sum[g][15:14] == 2'd0);
        assert (!known3 || sums[g] == sums_apart[g]);
      end
    end
  end

endmodule
