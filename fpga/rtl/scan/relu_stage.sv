// The last stage of scores: relu_unit with each step's weights, which a step reads with its multipliers.
//
// Streams: steps of scores in, beats out, as relu_unit has them; nothing stalls. `group_last` is that of the step
// 14 cycles before `valid`; `pass` and `weight` are its, READ cycles later. A beat of one query (G 1) has no room for
// codes: then all steps go through. Latency: 5 cycles of codes, none of other steps.
//
// Equals layout::ReluTerm and the sums of layout::Ranks.
module relu_stage #(
    parameter int G = 4,
    parameter int S = 16,
    parameter int READ = 6
) (
    input  logic                        clk,
    input  logic                        rst,
    input  logic [5:0]                  group_last,
    input  logic [3:0]                  pass,
    input  logic [G-1:0][15:0]          weight,
    input  logic                        valid,
    input  logic                        relu,
    input  logic                        last_pass,
    input  card_types::score_head_t     head,
    input  logic [S/G-1:0][G-1:0][15:0] y,
    output logic                        out_valid,
    output logic                        dropped,     // a step that gives no beat
    output card_types::score_head_t     out_head,
    output logic [S*16-1:0]             out_y
);
  localparam int LOG = $clog2(G);
  localparam int STEP = 14;

  if (G >= 2) begin : g_relu
    // The last pass may have fewer queries.
    logic [G-1:0][15:0] weight_now, weight_then;
    logic [5:0] last_then;
    delay #(
        .WIDTH(6),
        .CYCLES(READ)
    ) delay_group (
        .clk,
        .in_data(group_last),
        .out_data(last_then)
    );
    always_comb begin
      for (int g = 0; g < G; ++g) weight_now[g] = 8'({pass, LOG'(g)}) <= 8'(last_then) ? weight[g] : 16'd0;
    end
    delay #(
        .WIDTH(16 * G),
        .CYCLES(STEP - READ)
    ) delay_weight (
        .clk,
        .in_data(weight_now),
        .out_data(weight_then)
    );
    relu_unit #(
        .G(G),
        .S(S)
    ) ranks (
        .clk,
        .rst,
        .valid,
        .relu,
        .last_pass,
        .head,
        .y,
        .weight(weight_then),
        .out_valid,
        .dropped,
        .out_head,
        .out_y
    );
  end else begin : g_none
    logic unused;
    assign unused = &{1'b0, clk, rst, group_last, pass, weight, relu, last_pass, 1'b0};
    assign out_valid = valid;
    assign dropped = 1'b0;
    assign out_head = head;
    assign out_y = y;
  end
endmodule
