// skid: it is a queue of two. A shadow queue, filled and emptied by the handshakes alone, has the same first
// payload at every cycle, so nothing is lost, doubled or reordered; ready is a register, and there is room but
// for two payloads.
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

  logic past = 1'b0;
  always_ff @(posedge clk) past <= 1'b1;
  always_comb if (!past) assume (rst);

  logic waits;
  logic [WIDTH-1:0] waiting;
  always_ff @(posedge clk) begin
    waits   <= past && !rst && in_valid && !in_ready;
    waiting <= in_data;
  end
  always_comb if (waits) assume (in_valid && in_data == waiting);

  logic [WIDTH-1:0] first, second;
  logic [1:0] count;
  logic push, pop;
  assign push = in_valid && in_ready;
  assign pop  = out_valid && out_ready;
  always_ff @(posedge clk) begin
    if (rst) begin
      count <= 2'd0;
    end else begin
      count <= count + 2'(push) - 2'(pop);
      if (pop) first <= second;
      if (push && count - 2'(pop) == 2'd0) first <= in_data;
      if (push && count - 2'(pop) == 2'd1) second <= in_data;
    end
  end

  logic started = 1'b0;
  always_ff @(posedge clk) started <= past && !rst;

  always_comb begin
    if (past) begin
      assert (count <= 2'd2);
      assert (out_valid == (count != 2'd0));
      assert (spare_valid == (count == 2'd2));
      if (started) assert (in_ready == (count != 2'd2));
      else assert (!in_ready);
      if (out_valid) assert (out_data == first);
      if (spare_valid) assert (spare == second);
    end
  end

  always_comb cover (past && count == 2'd2);

endmodule

bind skid skid_props #(.WIDTH(WIDTH)) props (.*);
