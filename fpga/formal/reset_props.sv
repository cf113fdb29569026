// command, with control_regs and its own `stop` and `any_open`, all other parts left out: their outputs are anything.
//
// Reset: core_rst is high only while no transaction is open on any port, for as long as it is high. It comes 17 cycles
// after the last transaction has ended at the latest, and stays for 512 cycles. Then each register is 0, as after
// power-on, until the first write: also the words of the RAM that reads come from, of which one, any, is looked at.
// A quiesce ends 2 cycles after all parts are idle and the last transaction has ended, and not before.
// The registers' port: each write and each read has one answer, within the bounds below, in a reset as well; what waits
// for the master's own ready does not count.
// Assumed: with `stop`, a port begins nothing a cycle later, as host_reader_props and host_writer_props prove, and
// channel_reader.sv has it; power-on finds no transaction; the master holds what it asks for; a lane's counter
// comes 5 cycles after it is asked for, if no reset comes first.
module reset_props
  import command_types::*;
#(
    parameter int CHANNELS = 2,
    parameter int N_QUEUES = 8
) (
    input logic                              clk,
    input logic                              rst,
    input logic                              s_awvalid,
    input logic                              s_awready,
    input logic        [               12:0] s_awaddr,
    input logic                              s_wvalid,
    input logic                              s_wready,
    input logic                              s_bvalid,
    input logic                              s_bready,
    input logic                              s_arvalid,
    input logic                              s_arready,
    input logic        [               12:0] s_araddr,
    input logic                              s_rvalid,
    input logic                              s_rready,
    input logic        [               31:0] s_rdata,
    input logic                              irq,
    input logic                              core_rst,
    input logic                              stop,
    input logic                              failed,
    input logic        [       CHANNELS-1:0] open,
    input logic                              reader_open,
    input logic                              writer_open,
    input logic                              any_open,
    input logic                              idle,
    input logic                              poller_reading,
    input logic                              quiesced,
    input logic                              quiesce,
    input logic                              run,
    input logic        [               31:0] watchdog_limit,
    input logic        [               15:0] cycle_period,
    input queue_t      [       N_QUEUES-1:0] queues,
    input logic        [CHANNELS-1:0][33:0]  base_beat,
    input logic        [CHANNELS-1:0][31:0]  length_beats,
    input logic                              lane_read,
    input logic                              lane_value_valid,
    // Registers of control_regs.
    input logic        [                1:0] phase,
    input logic        [                8:0] clear_at,
    input logic        [                3:0] closed,
    input logic        [                2:0] reading,
    input logic                              accept,
    input logic                              held,
    input logic                              answered,
    input logic                              write,
    input logic                              queue_write,
    input logic                              channel_write,
    input logic        [       N_QUEUES-1:0] of_queue,
    input logic        [       CHANNELS-1:0] of_channel,
    input logic                              store_we,
    input logic        [                8:0] store_at,
    input logic        [               31:0] store_data,
    input logic                              interrupts_used,
    input logic        [                1:0] interrupt_enable,
    input logic        [                1:0] interrupt_status,
    input logic                              interrupt_asked
);
  localparam logic [1:0] WORKING = 2'd0, CLOSING = 2'd1, CLEARING = 2'd2;
  localparam logic [2:0] NONE = 3'd0, ADDRESS = 3'd1, LOOKUP = 3'd2, LANE = 3'd3, VALUE = 3'd4, ANSWER = 3'd5;

  logic past = 1'b0;
  always_ff @(posedge clk) past <= 1'b1;
  always_comb if (!past) assume (rst);

  // Ports: lanes, then the reader and the writer.
  logic [CHANNELS+1:0] ports, ports_q, ports_qq;
  logic stop_q, stop_qq, core_rst_q, rst_q, quiet_q;
  logic [1:0] phase_q;
  logic began = 1'b0;
  assign ports = {writer_open, reader_open, open};
  always_ff @(posedge clk) begin
    began      <= past && !rst;
    ports_q    <= ports;
    ports_qq   <= ports_q;
    stop_q     <= stop;
    stop_qq    <= stop_q;
    rst_q      <= rst;
    core_rst_q <= core_rst;
    phase_q    <= rst ? CLEARING : phase;
    quiet_q    <= quiesce && idle && !poller_reading;
  end
  always_comb begin
    if (rst) assume (ports == '0);
    if (past && (rst_q || core_rst_q)) assume (ports == '0);  // the parts are reset
    if (past && stop_q) assume ((ports & ~ports_q) == '0);
  end

  // Cycles of a reset since its last transaction ended, and those of core_rst.
  logic [5:0] shut;
  logic [9:0] cleared;
  always_ff @(posedge clk) begin
    shut    <= (rst || phase != CLOSING || ports != '0) ? '0 : shut + 6'(!(&shut));
    cleared <= (rst || phase != CLEARING) ? '0 : cleared + 1'b1;
  end

  always_comb begin
    if (past) begin
      assert (phase <= CLEARING);
      if (phase != CLEARING) assert (clear_at == '0);
      else assert (cleared == 10'(clear_at));
      if (!rst && began) begin
        // The claims.
        if (core_rst && !core_rst_q) assert (ports == '0 && ports_q == '0 && stop);
        assert (shut <= 6'd17);
        if (phase == WORKING && phase_q == CLEARING) assert (cleared == 10'd512);
        assert (core_rst == (phase_q == CLEARING));
        assert (quiesced == (quiet_q && ports_qq == '0));
        // Invariants.
        assert (any_open == (ports_q != '0));
        if (phase == CLOSING) assert (shut <= 6'(closed) + 6'd1);
        if (phase == WORKING) assert (shut == '0);
        if (closed != '0) assert (phase_q == CLOSING && phase != WORKING && ports_qq == '0);
        if (closed >= 4'd2) assert (stop && stop_q);
        if (closed >= 4'd3) assert (stop_qq && ports == '0 && ports_q == '0);
        if (phase == CLEARING && !core_rst) assert (stop && stop_q && ports == '0 && ports_q == '0);
        if (phase == CLEARING && clear_at == '0) assert (phase_q == CLOSING);
        if (phase == CLEARING && clear_at != '0) assert (phase_q == CLEARING && core_rst);
      end
    end
  end

  // Registers: nothing was written since the last reset.
  logic fresh, word_zero;
  logic [8:0] looked_at;  // any word: it has no first value
  always_ff @(posedge clk) begin
    looked_at <= looked_at;
    fresh     <= core_rst || (fresh && !write);
    if (store_we && store_at == looked_at) word_zero <= store_data == '0;
  end
  always_comb begin
    if (began && !rst) begin
      if (fresh && core_rst_q) assert (phase != CLOSING);
      if (core_rst_q || (fresh && !core_rst)) begin
        assert (queues == '0 && base_beat == '0 && length_beats == '0);
        assert (!run && !quiesce && watchdog_limit == '0 && cycle_period == '0);
        assert (!interrupts_used && interrupt_enable == '0 && interrupt_status == '0 && !interrupt_asked && !irq);
      end
      if (phase == CLEARING ? clear_at > looked_at : fresh) assert (word_zero);
      if (phase != CLEARING && core_rst) assert (fresh);
      assert (fresh || !core_rst_q);
      if (of_queue != '0) assert (write && queue_write);
      if (of_channel != '0) assert (write && channel_write);
      if (queue_write || channel_write) assert (write);
      if (phase == CLEARING) begin
        if (clear_at >= 9'd1) assert (!accept);
        if (clear_at >= 9'd2) assert (!held);
        if (clear_at >= 9'd3) assert (!write);
      end
      if (phase_q == CLEARING) assert (!accept || clear_at == '0 || phase == CLEARING);
      if (phase == WORKING && core_rst) assert (!accept && !held && !write);
    end
  end

  // The registers' port. A master holds what it asks for.
  logic aw_waits, w_waits, ar_waits;
  logic [12:0] awaddr_q, araddr_q;
  always_ff @(posedge clk) begin
    aw_waits <= past && !rst && s_awvalid && !s_awready;
    w_waits  <= past && !rst && s_wvalid && !s_wready;
    ar_waits <= past && !rst && s_arvalid && !s_arready;
    awaddr_q <= s_awaddr;
    araddr_q <= s_araddr;
  end
  always_comb begin
    if (aw_waits) assume (s_awvalid && s_awaddr == awaddr_q);
    if (w_waits) assume (s_wvalid);
    if (ar_waits) assume (s_arvalid && s_araddr == araddr_q);
  end

  // Cycles that a write or a read waits, but those of CLEARING, which has 512, and of the master's own ready.
  logic [3:0] write_waits, read_waits, read_takes;
  logic [2:0] lane_due;  // cycles since a lane's counter was asked for, if none came
  logic owes_write, owes_read;
  always_ff @(posedge clk) begin
    if (rst || accept || !(s_awvalid && s_wvalid)) write_waits <= '0;
    else if (phase != CLEARING && !(s_bvalid && !s_bready)) write_waits <= write_waits + 4'(!(&write_waits));
    if (rst || s_arready || !s_arvalid) read_waits <= '0;
    else if (phase != CLEARING && !(s_rvalid && !s_rready)) read_waits <= read_waits + 4'(!(&read_waits));
    read_takes <= (rst || reading == NONE || reading == ANSWER) ? '0 : read_takes + 4'(!(&read_takes));
    if (rst || core_rst || lane_value_valid) lane_due <= '0;
    else if (lane_read) lane_due <= 3'd1;
    else if (lane_due != '0) lane_due <= lane_due + 3'd1;
    if (rst) owes_write <= 1'b0;
    else if (accept) owes_write <= 1'b1;
    else if (s_bvalid && s_bready) owes_write <= 1'b0;
    if (rst) owes_read <= 1'b0;
    else if (s_arvalid && s_arready) owes_read <= 1'b1;
    else if (s_rvalid && s_rready) owes_read <= 1'b0;
  end
  always_comb begin
    assume (lane_due <= 3'd5);
    if (lane_due == 3'd5 && !core_rst) assume (lane_value_valid);
    if (lane_due == '0) assume (!lane_value_valid);
  end
  always_comb begin
    if (began && !rst) begin
      // The claims: the longest waits, and one answer for each access.
      assert (write_waits <= 4'd4);
      assert (read_waits <= 4'd9);
      assert (read_takes <= 4'd8);
      assert (owes_write == (held || answered || s_bvalid));
      assert (owes_read == (reading != NONE));
      assert (s_awready == s_wready);
      if (s_awready) assert (s_awvalid && s_wvalid && !owes_write);
      // Invariants.
      assert (32'(held) + 32'(answered) + 32'(s_bvalid) + 32'(accept) <= 1);
      if (accept) assert (s_awvalid && s_wvalid);
      if (held) assert (write_waits == '0);
      if (answered) assert (write_waits <= 4'd1);
      if (s_bvalid) assert (write_waits <= 4'd2);
      if (!accept && !owes_write) assert (write_waits <= 4'd3);
      assert (reading <= ANSWER);
      if (reading == ADDRESS) assert (read_takes == '0 && read_waits == '0);
      if (reading == LOOKUP) assert (read_takes == 4'd1 && read_waits <= 4'd1);
      if (reading == LANE) assert (lane_due != '0 && read_takes == 4'(lane_due) && read_waits <= 4'(lane_due));
      if (lane_due != '0) assert (reading == LANE);
      if (reading == VALUE) assert (read_takes <= 4'd6 && read_waits <= 4'd6);
      if (reading == ANSWER) assert (read_waits <= 4'd7);
      if (reading == NONE) assert (read_waits <= 4'd8);
    end
  end
  always_comb cover (past && phase == CLOSING && ports != '0 && s_arvalid);
endmodule

bind command reset_props #(
    .CHANNELS(CHANNELS),
    .N_QUEUES(N_QUEUES)
) props (
    .*,
    .phase(registers.phase),
    .clear_at(registers.clear_at),
    .closed(registers.closed),
    .reading(registers.reading),
    .accept(registers.accept),
    .held(registers.held),
    .answered(registers.answered),
    .write(registers.write),
    .queue_write(registers.queue_write),
    .channel_write(registers.channel_write),
    .of_queue(registers.of_queue),
    .of_channel(registers.of_channel),
    .store_we(registers.store.we),
    .store_at(registers.store.waddr),
    .store_data(registers.store.wdata),
    .interrupts_used(registers.interrupts_used),
    .interrupt_enable(registers.interrupt_enable),
    .interrupt_status(registers.interrupt_status),
    .interrupt_asked(registers.interrupts.asked)
);
