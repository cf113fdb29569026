// COUNT counters of 64 bits in a block RAM, for events that may come every cycle. Each counter gathers its events in
// 9 bits, and one after the other is added to its word: so a value is behind by COUNT + 8 cycles at most.
//
// `read` gives the counter's value 2 cycles later, with `value_valid`; it may come every fourth cycle at most. The
// first round after reset clears the RAM; a read during it gives 0.
module counter_bank #(
    parameter int COUNT = 16  // a power of two, 16 to 256
) (
    input  logic                     clk,
    input  logic                     rst,
    input  logic [        COUNT-1:0] events,
    input  logic                     read,
    input  logic [$clog2(COUNT)-1:0] read_at,
    output logic                     value_valid,
    output logic [             63:0] value
);
  localparam int AT = $clog2(COUNT);

  logic [COUNT-1:0][8:0] gathered;
  logic [AT-1:0] at, at_read, at_sum;
  logic first_round, first_read, walk_read, walk_sum, host_read;
  logic [8:0] taken;
  logic [63:0] stored, sum;

  ram_block #(
      .WIDTH(64),
      .DEPTH(COUNT)
  ) store (
      .clk,
      .we(walk_sum),
      .waddr(at_sum),
      .wdata(sum),
      .re(1'b1),
      .raddr(read ? read_at : at),
      .rdata(stored)
  );

  always_ff @(posedge clk) begin
    for (int i = 0; i < COUNT; i++) begin
      if (rst) gathered[i] <= '0;
      else gathered[i] <= ((!read && at == AT'(i)) ? 9'd0 : gathered[i]) + 9'(events[i]);
    end
    if (rst) begin
      at          <= '0;
      first_round <= 1'b1;
      walk_read   <= 1'b0;
      walk_sum    <= 1'b0;
      host_read   <= 1'b0;
      value_valid <= 1'b0;
    end else begin
      if (!read) begin
        at <= at + 1'b1;
        if (at == '1) first_round <= 1'b0;
      end
      walk_read   <= !read;
      walk_sum    <= walk_read;
      host_read   <= read;
      value_valid <= host_read;
    end
    first_read <= first_round;
    taken      <= gathered[at];
    at_read    <= at;
    sum        <= (first_read ? 64'd0 : stored) + 64'(taken);
    at_sum     <= at_read;
    if (host_read) value <= first_read ? 64'd0 : stored;
  end
endmodule
