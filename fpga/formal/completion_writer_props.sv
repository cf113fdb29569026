// completion_writer: the head that a queue's ring gets counts the completions whose last bytes have their response. The
// port takes them in the order body, last bytes, head, the first two at one address and with the same bytes; a queue's
// head moves by one for each and never passes them. The body is written when the results of its descriptor have their
// responses. The environment opens a queue when none of its completions is under way, answers the writes that it has
// taken, and tells of the responses of results once for each descriptor.
module completion_writer_props
  import mnemo_pkg::*;
  import command_types::*;
#(
    parameter int N_QUEUES = 2
) (
    input logic                       clk,
    input logic                       rst,
    input logic                       busy,
    input queue_t      [N_QUEUES-1:0] queues,
    input logic                       opened,
    input logic        [         2:0] opened_number,
    input logic        [        31:0] opened_head,
    input logic                       finished_valid,
    input logic                       finished_ready,
    input finished_t                  finished,
    input logic                       responded,
    input logic                       write_valid,
    input logic                       write_ready,
    input host_write_t                write,
    input logic                       written,
    // Registers of the module, for the invariants of the induction.
    input logic        [         2:0] state,
    input logic        [         3:0] step,
    input logic                       stored,
    input logic                       half,
    input logic [N_QUEUES-1:0][ 31:0] heads,
    input logic        [        31:0] head,
    input logic        [        31:0] slots,
    input logic        [        31:0] slot,
    input logic        [        63:0] ring,
    input logic        [         0:0] number
);
  localparam logic [2:0] IDLE = 3'd0, TIMES = 3'd1, RESULTS = 3'd2, BODY = 3'd3, STATUS = 3'd4, HEAD = 3'd5;
  logic past = 1'b0;
  always_ff @(posedge clk) past <= 1'b1;
  always_comb if (!past) assume (rst);

  // Writes that the port has taken and not answered.
  logic [1:0] owed;
  always_ff @(posedge clk) begin
    if (rst) owed <= 2'd0;
    else owed <= owed + 2'(write_valid && write_ready) - 2'(written);
  end
  logic heard;  // of the responses of the descriptor under way
  logic [511:0] body_data;
  always_ff @(posedge clk) begin
    if (rst || (finished_valid && finished_ready)) heard <= 1'b0;
    else if (responded) heard <= 1'b1;
    if (state == BODY) body_data <= write.data;
  end
  always_comb begin
    if (owed == 2'd0) assume (!written);
    // The pulse belongs to the descriptor that was taken, and comes once.
    if (state == IDLE || heard) assume (!responded);
    if (finished_valid) assume (finished.number < 3'(N_QUEUES));
    if (opened) assume (!busy && !finished_valid && opened_number < 3'(N_QUEUES));
  end
  queue_t [N_QUEUES-1:0] queues_q;
  always_ff @(posedge clk) queues_q <= queues;
  always_comb if (past && busy) assume (queues == queues_q);

  // Completions of each queue whose last bytes are in memory, from where it was opened.
  logic [N_QUEUES-1:0][31:0] complete;
  logic [1:0] steps;  // of the completion under way: its writes that are answered
  always_ff @(posedge clk) begin
    if (opened) complete[opened_number[0]] <= opened_head;
    else if (!rst && written && steps == 2'd1) complete[number] <= complete[number] + 32'd1;
    if (rst || (finished_valid && finished_ready)) steps <= 2'd0;
    else if (written) steps <= steps + 2'd1;
  end
  logic known[N_QUEUES];  // opened since the reset
  always_ff @(posedge clk) begin
    for (int q = 0; q < N_QUEUES; q++) begin
      if (rst) known[q] <= 1'b0;
      else if (opened && opened_number == 3'(q)) known[q] <= 1'b1;
    end
  end

  always_comb begin
    if (past) begin
      assert (state <= HEAD);
      if (state > IDLE && state < STATUS) assert (steps == 2'd0);
      if (state < BODY) assert (!write_valid && owed == 2'd0);
      if (state != IDLE) assert (stored == heard);
      if (state >= BODY) assert (heard);
      assert (half == (state == STATUS && steps == 2'd1));
      // Taken by the port and not answered: of a completion the body first, then the last bytes as well.
      if (state == BODY) assert (write_valid && owed == 2'd0);
      if (state == STATUS) assert (steps < 2'd2 && owed + 2'(write_valid) + steps == 2'd2);
      if (state == HEAD) assert (steps == 2'd2 && owed + 2'(write_valid) == 2'd1);
      if (state == STATUS && write_valid) assert (write.data == body_data);
      for (int q = 0; q < N_QUEUES; q++) begin
        if (known[q]) begin
          if (state == HEAD && number == 1'(q)) assert (complete[q] == heads[q] + 32'd1);
          else assert (complete[q] == heads[q]);
        end
      end
      if (state == TIMES) assert (step <= 4'd8);
      if (state >= RESULTS || (state == TIMES && step >= 4'd1)) begin
        assert (head == heads[number] && ring == queues[number].completions && slots == queues[number].slots);
      end
      if (state >= RESULTS || (state == TIMES && step >= 4'd2)) assert (slot == (head & (slots - 32'd1)));
      if (write_valid && known[number]) begin
        if (state == HEAD) begin
          assert (write.address == ring + 64'(RING_AT_HEAD) && write.words == 16'h0001);
          assert (write.data[31:0] == complete[number]);
        end else begin
          assert (write.address == ring + 64'(RING_HEADER_BYTES) + {26'b0, head & (slots - 32'd1), 6'b0});
          assert (write.words == (state == STATUS ? 16'hC000 : 16'h3FFF));
        end
      end
    end
  end
  always_comb cover (past && state == HEAD && write_valid);
endmodule

bind completion_writer completion_writer_props #(.N_QUEUES(N_QUEUES)) props (
    .*,
    .state(3'(state))
);
