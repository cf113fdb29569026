// counter_bank: no event is lost nor counted twice. A read gives the number of events since reset up to a cycle at
// most LAG before it, or 0 where that cycle would be before the reset. The claims are about one counter, which is any
// of them. A read comes every fourth cycle at most. A reset may come at any time; a read under way is not answered.
//
// Between two turns of a counter are COUNT steps and at most COUNT / 3 + 1 reads, 342 cycles for 256 counters: what it
// gathers has 9 bits. A sum is in the RAM at most 4 cycles after the turn.
module counter_bank_props #(
    parameter int COUNT = 4
) (
    input logic                          clk,
    input logic                          rst,
    input logic [        COUNT-1:0]      events,
    input logic                          read,
    input logic [$clog2(COUNT)-1:0]      read_at,
    input logic                          value_valid,
    input logic [             63:0]      value,
    // Registers of the module, for the invariants of the induction.
    input logic [        COUNT-1:0][8:0] gathered,
    input logic [$clog2(COUNT)-1:0]      at,
    input logic                          first_round,
    input logic                          walk_sum,
    input logic [$clog2(COUNT)-1:0]      at_sum,
    input logic [             63:0]      words      [COUNT]
);
  localparam int AT = $clog2(COUNT);
  localparam int ROUND = COUNT + COUNT / 3 + 1;  // cycles between two turns
  localparam int LAG = ROUND + 3;

  logic past = 1'b0;
  always_ff @(posedge clk) past <= 1'b1;
  always_comb if (!past) assume (rst);

  logic [AT-1:0] which;
  always_ff @(posedge clk) which <= which;

  // Cycles since the last read, up to 3.
  logic [1:0] rested;
  always_ff @(posedge clk) rested <= read ? 2'd0 : (rested == 2'd3) ? 2'd3 : rested + 2'd1;
  always_comb if (read) assume (rested == 2'd3);

  logic event_here, turn;
  assign event_here = events[which];
  assign turn = !read && at == which;

  // Events since reset, those of the last cycles one by one, newest first, and the number before these.
  logic [63:0] total;
  logic [LAG:1] recent;
  logic [7:0] running;  // cycles since reset
  always_ff @(posedge clk) begin
    total   <= rst ? '0 : total + 64'(event_here);
    recent  <= rst ? '0 : {recent[LAG-1:1], event_here};
    running <= rst ? '0 : (running == '1) ? '1 : running + 8'd1;
  end
  function automatic logic [7:0] ones(input logic [LAG:1] bits, input logic [7:0] last);
    ones = '0;
    for (int n = 1; n <= LAG; n++) if (8'(n) <= last) ones = ones + 8'(bits[n]);
  endfunction

  // Since the counter's last turn, or reset: steps and reads. What it gathered until the turn is in flight until its
  // sum is written.
  logic [7:0] steps, reads, flight_age, flight_from, age, behind;
  logic [7:0] first_reads;  // since reset
  logic written;
  always_ff @(posedge clk) begin
    if (rst) begin
      {steps, reads, flight_age, flight_from, first_reads} <= '0;
      written <= 1'b0;
    end else begin
      steps       <= turn ? 8'd1 : steps + 8'(!read);
      reads       <= turn ? 8'd0 : reads + 8'(read);
      first_reads <= (first_reads == '1) ? '1 : first_reads + 8'(read);
      if (turn) begin
        flight_age  <= 8'd1;
        flight_from <= age;
      end else if (walk_sum && at_sum == which) flight_age <= '0;
      else if (flight_age != '0) flight_age <= flight_age + 8'd1;
      if (walk_sum && at_sum == which) written <= 1'b1;
    end
  end
  assign age = steps + reads;
  assign behind = age + ((flight_age == '0) ? 8'd0 : flight_from);

  // The words of the RAM, and reads under way.
  logic [63:0] counted, counted_1, counted_2;
  logic [1:0] asked;
  logic young_1, young_2;  // no event is older than LAG
  assign counted = total - 64'(ones(recent, behind));
  always_ff @(posedge clk) begin
    asked     <= rst ? 2'b0 : {asked[0], read && read_at == which};
    counted_1 <= counted;
    counted_2 <= counted_1;
    young_1   <= running <= 8'(LAG);
    young_2   <= young_1;
  end

  // The claims.
  always_comb begin
    if (past) begin
      assert (behind <= 8'(LAG));
      if (asked[1]) assert (value_valid && (value == counted_2 || (young_2 && value == '0)));
    end
  end

  // Invariants.
  logic [AT-1:0] ahead;  // steps before the next turn
  assign ahead = which - at;
  always_comb begin
    if (past) begin
      assert (steps + 8'(ahead) <= 8'(COUNT));
      assert (reads == '0 || 8'd3 * (reads - 8'd1) + 8'(rested) <= steps);
      assert (age <= 8'(ROUND));
      assert (flight_age <= 8'd3 && flight_from <= 8'(ROUND));
      if (flight_age != '0) assert (age == flight_age);
      assert (64'(gathered[which]) == 64'(ones(recent, age)));
      if (written) assert (words[which] == counted);
      else assert (counted == '0);
      // In the first round the counter had its turn once this has passed it, and later it had one.
      assert ((written || flight_age != '0) == (!first_round || at > which));
      assert (first_round || running >= 8'(COUNT));
      if (first_round) begin
        assert (running == 8'(at) + first_reads);
        assert (first_reads <= 8'(ROUND));
        assert (first_reads == '0 || 8'd3 * (first_reads - 8'd1) + 8'(rested) <= 8'(at));
      end
      if (running <= 8'(LAG)) assert (total == 64'(ones(recent, running)) && recent >> running == '0);
    end
  end
  always_comb cover (past && asked[1] && value > 64'd3);
endmodule

bind counter_bank counter_bank_props #(
    .COUNT(COUNT)
) props (
    .*,
    .words(store.words)
);
