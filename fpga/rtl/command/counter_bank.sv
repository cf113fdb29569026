// COUNT counters of 64 bits in a block RAM, for events that may come every cycle. Each counter gathers its events in
// 9 bits, and one after the other is added to its word: so a value is behind by COUNT + 9 cycles at most, and by one
// more for each read meanwhile. What is gathered is chosen in two steps of a cycle each, by the low bits of the
// counter's number and then by the high ones.
//
// `read` gives the counter's value 2 cycles later, with `value_valid`; it may come every fourth cycle at most. The
// first round after reset clears the RAM; a read before its last word is written gives 0.
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
  localparam int LOW = AT / 2;
  localparam int ROWS = 2 ** (AT - LOW);
  localparam int COLUMNS = 2 ** LOW;

  logic [COUNT-1:0][8:0] gathered;
  logic [ROWS-1:0] row;  // the bits of `at` decoded
  logic [COLUMNS-1:0] column;
  logic [ROWS-1:0][8:0] of_column;  // the counters in it, as they were a cycle ago
  logic [AT-1:0] at, at_next, at_read, at_taken, at_sum;
  logic first_round, first_read, first_taken, first_sum, unwritten, walk_read, walk_taken, walk_sum, host_read;
  logic [8:0] taken;
  logic [63:0] stored, stored_taken, sum;
  assign at_next = at + 1'b1;

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
      // The counter that is taken begins anew with this cycle's event.
      if (rst) gathered[i] <= '0;
      else if (!read && row[i/COLUMNS] && column[i%COLUMNS]) gathered[i] <= 9'(events[i]);
      else gathered[i] <= gathered[i] + 9'(events[i]);
    end
    if (rst) begin
      at          <= '0;
      row         <= ROWS'(1);
      column      <= COLUMNS'(1);
      first_round <= 1'b1;
      walk_read   <= 1'b0;
      walk_taken  <= 1'b0;
      walk_sum    <= 1'b0;
      host_read   <= 1'b0;
      value_valid <= 1'b0;
    end else begin
      if (!read) begin
        at <= at_next;
        for (int i = 0; i < ROWS; i++) row[i] <= at_next[AT-1:LOW] == (AT - LOW)'(i);
        for (int i = 0; i < COLUMNS; i++) column[i] <= at_next[LOW-1:0] == LOW'(i);
        if (at == '1) first_round <= 1'b0;
      end
      walk_read   <= !read;
      walk_taken  <= walk_read;
      walk_sum    <= walk_taken;
      host_read   <= read;
      value_valid <= host_read;
    end
    first_read <= first_round;
    for (int i = 0; i < ROWS; i++) of_column[i] <= gathered[COLUMNS*i+32'(at[LOW-1:0])];
    at_read     <= at;
    first_taken <= first_read;
    first_sum   <= first_taken;
    unwritten   <= first_round || first_read || first_taken || first_sum;
    taken       <= of_column[at_read[AT-1:LOW]];
    stored_taken <= stored;
    at_taken    <= at_read;
    sum         <= (first_taken ? 64'd0 : stored_taken) + 64'(taken);
    at_sum      <= at_taken;
    if (host_read) value <= unwritten ? 64'd0 : stored;
  end
endmodule
