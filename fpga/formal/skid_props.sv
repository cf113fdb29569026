// skid: it is a queue. It has the first payload of the shadow queue of two at every cycle; ready is a register.
module skid_props #(
    parameter int WIDTH = 8
) (
    input logic             clk,
    input logic             rst,
    input logic             in_valid,
    input logic             in_ready,
    input logic [WIDTH-1:0] in_data,
    input logic             out_valid,
    input logic             out_ready,
    input logic [WIDTH-1:0] out_data,
    // Registers of the module, for the invariants of the induction.
    input logic             spare_valid,
    input logic [WIDTH-1:0] spare
);

  logic past, push;
  logic [1:0] count;
  logic [WIDTH-1:0] queue[2];
  shadow_queue #(
      .WIDTH(WIDTH),
      .DEPTH(2)
  ) shadow (
      .*
  );

  always_comb begin
    if (past) begin
      assert (out_valid == (count != 2'd0));
      assert (spare_valid == (count == 2'd2));
      if (spare_valid) assert (spare == queue[1]);
    end
  end

endmodule

bind skid skid_props #(.WIDTH(WIDTH)) props (.*);
