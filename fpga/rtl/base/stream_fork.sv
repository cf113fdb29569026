// One stream to N: every output gets each beat once.
//
// Streams: in; out_valid[i], out_ready[i] with out_data common to all. Latency: 0, the beat waits in the source.
// in_ready is a register, and so is what the outputs have taken: N readies end here. A beat leaves the source two cycles
// after the last output has taken it, one in three cycles at most. Stalls: the slowest output; the others wait.
module stream_fork #(
    parameter int N = 2,
    parameter int WIDTH = 8
) (
    input  logic             clk,
    input  logic             rst,
    input  logic             in_valid,
    output logic             in_ready,
    input  logic [WIDTH-1:0] in_data,
    output logic [N-1:0]     out_valid,
    input  logic [N-1:0]     out_ready,
    output logic [WIDTH-1:0] out_data
);
  logic [N-1:0] taken;  // outputs that have the present beat already
  logic [N-1:0] taking;

  assign out_valid = {N{in_valid}} & ~taken;
  assign out_data = in_data;
  assign taking = out_valid & out_ready;

  always_ff @(posedge clk) begin
    if (rst) begin
      taken    <= '0;
      in_ready <= 1'b0;
    end else begin
      taken    <= in_ready ? '0 : taken | taking;
      in_ready <= !in_ready && (&taken);
    end
  end

  stream_if #(
      .WIDTH(WIDTH)
  ) check_in (
      .clk,
      .rst,
      .valid(in_valid),
      .ready(in_ready),
      .data(in_data)
  );
endmodule
