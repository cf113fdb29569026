// A register of a stream in both directions: neither valid and data nor ready passes without a register.
//
// Streams: in, out; order is kept and nothing is lost. Latency: 1 cycle. Stalls: in while two payloads wait.
module skid #(
    parameter int WIDTH = 8
) (
    input  logic             clk,
    input  logic             rst,
    input  logic             in_valid,
    output logic             in_ready,
    input  logic [WIDTH-1:0] in_data,
    output logic             out_valid,
    input  logic             out_ready,
    output logic [WIDTH-1:0] out_data
);
  logic spare_valid;  // then in_ready is 0
  logic [WIDTH-1:0] spare;
  logic in_fire, out_free;

  assign in_fire  = in_valid && in_ready;
  assign out_free = !out_valid || out_ready;

  always_ff @(posedge clk) begin
    if (rst) begin
      in_ready    <= 1'b0;
      out_valid   <= 1'b0;
      spare_valid <= 1'b0;
    end else if (out_free) begin
      in_ready    <= 1'b1;
      out_valid   <= spare_valid || in_fire;
      spare_valid <= 1'b0;
    end else begin
      in_ready    <= !(spare_valid || in_fire);
      spare_valid <= spare_valid || in_fire;
    end
    if (out_free) out_data <= spare_valid ? spare : in_data;
    if (in_ready) spare <= in_data;
  end

  stream_if #(.WIDTH(WIDTH)) check_in (.clk, .rst, .valid(in_valid), .ready(in_ready), .data(in_data));
  stream_if #(.WIDTH(WIDTH)) check_out (.clk, .rst, .valid(out_valid), .ready(out_ready), .data(out_data));
endmodule
