// Adds the values of N lanes, or takes the largest of them as signed numbers.
//
// Streams: one set of values in, one result out, each with a valid bit. Latency $clog2(N) cycles, one set a
// cycle; nothing stalls it. Equals a fold over the lanes in layout::TopK's counts and layout::Ranks' best.
module reduce_tree #(
    parameter int N = 2,  // a power of two
    parameter int WIDTH = 16,
    parameter bit LARGEST = 1'b0
) (
    /* verilator lint_off UNUSEDSIGNAL */  // one lane has no registers here
    input  logic                    clk,
    input  logic                    rst,
    /* verilator lint_on UNUSEDSIGNAL */
    input  logic                    in_valid,
    input  logic [N-1:0][WIDTH-1:0] in_value,
    output logic                    out_valid,
    output logic [WIDTH-1:0]        out_value
);

  localparam int LEVELS = $clog2(N);

  // Level l has N >> l values.
  for (genvar l = 0; l <= LEVELS; ++l) begin : level
    logic [(N>>l)-1:0][WIDTH-1:0] value;
    logic valid;
    if (l == 0) begin : leaf
      assign value = in_value;
      assign valid = in_valid;
    end else begin : node
      always_ff @(posedge clk) begin
        valid <= level[l-1].valid && !rst;
        for (int i = 0; i < (N >> l); ++i) begin
          if (LARGEST) begin
            value[i] <= $signed(level[l-1].value[2*i+1]) > $signed(level[l-1].value[2*i]) ? level[l-1].value[2*i+1] :
                level[l-1].value[2*i];
          end else begin
            value[i] <= level[l-1].value[2*i+1] + level[l-1].value[2*i];
          end
        end
      end
    end
  end

  assign out_valid = level[LEVELS].valid;
  assign out_value = level[LEVELS].value[0];

endmodule
