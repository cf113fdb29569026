// Holds the pages that a lane has read. Headers, bases and scales go to RAMs of their own; planes wait in a
// ring of block RAM, from which a page is read once for each pass.
//
// Streams: beats (never stalled; channel_reader keeps to the room), in the order of pages; planes: while
// plane_valid, plane_take takes the next beat, whose data follow 2 cycles later. plane_last goes with a pass'
// last beat: then reading goes on with the page's first plane (plane_again) or with the next page.
// Bases wait in a ring of 32 beats; base_written counts beats that came. Reads of headers, scales, masks and
// bases have no register. Nothing stalls. Latency: 3 cycles from beat to plane_valid.
module page_buffer
  import card_types::*;
  import scan_types::*;
#(
    parameter int ROOM = 512
) (
    input  logic         clk,
    input  logic         rst,
    input  logic         form_we,
    input  logic  [ 1:0] form_slot,
    // Each stage keeps what it needs of a job.
    // verilator lint_off UNUSEDSIGNAL
    input  form_t        form,
    // verilator lint_on UNUSEDSIGNAL
    input  logic         page_valid,
    input  page_t        page,
    input  logic         beat_valid,
    input  logic [511:0] beat,
    output logic         beat_peeled,
    output logic         beat_freed,
    output logic         plane_valid,
    input  logic         plane_take,
    input  logic         plane_last,
    input  logic         plane_again,
    output logic [511:0] plane,
    output logic  [ 5:0] base_written,
    input  logic  [ 4:0] base_at,
    output logic [511:0] base,
    input  logic  [ 4:0] base_slot,   // header for base scores
    output logic  [ 7:0] base_scale,
    input  logic  [ 4:0] score_slot,  // header, scales, range and mask for scores
    output header_t      header,
    output logic [511:0] scales,
    output logic  [ 5:0] low,
    output logic  [ 5:0] high,
    output logic  [63:0] mask
);
  localparam int POINTER = $clog2(ROOM);

  typedef struct packed {
    logic       codes;
    logic       page_row;
    kind_t      kind;
    logic [1:0] merge;
    logic [3:0] planes;
  } shape_t;
  typedef enum logic [1:0] {
    HEADER,
    BASE,
    PLANE,
    SCALES
  } state_t;

  shape_t shape_in, shape;
  logic [$bits(shape_t)-1:0] shape_bits;
  assign shape_in = '{
          codes: form.kind == KIND_CODES,
          page_row: form.page_row,
          kind: form.kind,
          merge: form.merge,
          planes: form.planes
      };
  logic [1:0] job;
  logic [4:0] slot;
  ram_lut #(
      .WIDTH($bits(shape_t)),
      .DEPTH(4)
  ) shapes (
      .clk,
      .we(form_we),
      .waddr(form_slot),
      .wdata(shape_in),
      .raddr(job),
      .rdata(shape_bits)
  );
  assign shape = shape_t'(shape_bits);

  // Pages whose beats come.
  logic coming_ready, coming_valid, page_ends;
  logic [5:0] unused_coming_level;
  fifo_late #(
      .WIDTH(7),
      .DEPTH(32)
  ) coming (
      .clk,
      .rst,
      .in_valid(page_valid && !page.none),
      .in_ready(coming_ready),
      .in_data({page.job, page.slot}),
      .out_valid(coming_valid),
      .out_ready(page_ends),
      .out_data({job, slot}),
      .level(unused_coming_level)
  );

  // The kind of a beat.
  state_t state;
  logic [4:0] left;  // beats of this section after this one
  logic [3:0] planes_left;  // after this one
  logic left_none, planes_none;  // these are 0
  logic [4:0] last_of_plane, first_left;
  logic first_plane, plane_ends, is_plane;
  logic [1:0] base_last;
  assign last_of_plane = last_beat_of_plane(shape.kind, shape.page_row, shape.merge);
  assign base_last = shape.merge == 2'd0 ? 2'd0 : shape.merge == 2'd1 ? 2'd1 : 2'd3;
  assign first_left = shape.codes ? 5'(base_last) : last_of_plane;
  assign is_plane = beat_valid && state == PLANE;
  assign plane_ends = is_plane && left_none;
  assign page_ends = plane_ends && planes_none;
  assign beat_peeled = beat_valid && state != PLANE;

  always_ff @(posedge clk) begin
    if (rst) state <= HEADER;
    else if (beat_valid) begin
      unique case (state)
        HEADER: state <= shape.codes ? BASE : PLANE;
        BASE: if (left_none) state <= PLANE;
        PLANE:
        if (page_ends) state <= HEADER;
        else if (plane_ends && first_plane && shape.codes) state <= SCALES;
        SCALES: state <= PLANE;
      endcase
    end
    if (beat_valid) begin
      if (state == HEADER) begin
        left <= first_left;
        left_none <= first_left == '0;
        planes_left <= shape.planes - 4'd1;
        planes_none <= shape.planes == 4'd1;
        first_plane <= 1'b1;
      end else if (state == SCALES || left_none) begin
        left <= last_of_plane;
        left_none <= last_of_plane == '0;
      end else begin
        left <= left - 5'd1;
        left_none <= left == 5'd1;
      end
      if (plane_ends) begin
        planes_left <= planes_left - 4'd1;
        planes_none <= planes_left == 4'd1;
        first_plane <= 1'b0;
      end
    end
  end

  // Planes.
  logic [POINTER:0] written, read, read_after, page_start;
  assign read_after = read + 1'b1;
  always_ff @(posedge clk) begin
    if (rst) begin
      written <= '0;
      read <= '0;
      page_start <= '0;
      beat_freed <= 1'b0;
      plane_valid <= 1'b0;
    end else begin
      if (is_plane) written <= written + 1'b1;
      if (plane_take) read <= (plane_last && plane_again) ? page_start : read_after;
      if (plane_take && plane_last && !plane_again) page_start <= read_after;
      beat_freed <= plane_take && !plane_again;
      // A page that is read again is there.
      if (!plane_take) plane_valid <= written != read;
      else plane_valid <= (plane_last && plane_again) || written != read_after;
    end
  end
  logic [511:0] stored;
  ram_block #(
      .WIDTH(512),
      .DEPTH(ROOM)
  ) ring (
      .clk,
      .we(is_plane),
      .waddr(written[POINTER-1:0]),
      .wdata(beat),
      .re(plane_take),
      .raddr(read[POINTER-1:0]),
      .rdata(stored)
  );
  always_ff @(posedge clk) plane <= stored;

  // Bases.
  always_ff @(posedge clk) begin
    if (rst) base_written <= '0;
    else if (beat_valid && state == BASE) base_written <= base_written + 6'd1;
  end
  ram_lut #(
      .WIDTH(512),
      .DEPTH(32)
  ) bases (
      .clk,
      .we(beat_valid && state == BASE),
      .waddr(base_written[4:0]),
      .wdata(beat),
      .raddr(base_at),
      .rdata(base)
  );

  // Headers, scales, ranges and masks.
  header_t header_in;
  logic [$bits(header_t)-1:0] header_bits;
  assign header_in = '{
          row_scales: beat[103:64],
          sign_scale: beat[23:16],
          top_octave: beat[15:8],
          base_scale: beat[7:0]
      };
  ram_lut #(
      .WIDTH($bits(header_t)),
      .DEPTH(32)
  ) headers (
      .clk,
      .we(beat_valid && state == HEADER),
      .waddr(slot),
      .wdata(header_in),
      .raddr(score_slot),
      .rdata(header_bits)
  );
  assign header = header_t'(header_bits);
  ram_lut #(
      .WIDTH(8),
      .DEPTH(32)
  ) base_scales (
      .clk,
      .we(beat_valid && state == HEADER),
      .waddr(slot),
      .wdata(beat[7:0]),
      .raddr(base_slot),
      .rdata(base_scale)
  );
  ram_lut #(
      .WIDTH(512),
      .DEPTH(32)
  ) scale_beats (
      .clk,
      .we(beat_valid && state == SCALES),
      .waddr(slot),
      .wdata(beat),
      .raddr(score_slot),
      .rdata(scales)
  );
  ram_lut #(
      .WIDTH(76),
      .DEPTH(32)
  ) ranges (
      .clk,
      .we(page_valid),
      .waddr(page.slot),
      .wdata({page.low, page.high, page.mask}),
      .raddr(score_slot),
      .rdata({low, high, mask})
  );

  logic unused;
  assign unused = &{1'b0, coming_ready, coming_valid, page.first, page.last, 1'b0};
endmodule
