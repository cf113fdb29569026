// Fetches the hits of pages from their lanes: pages in their order in, each with its hits out.
//
// Streams: a page a cycle in, its group 2 cycles later; nothing stalls it. `take` lets go of a lane's hits, which have
// been read. A page that says that lanes have no more is no group.
module body_fetch #(
    parameter int CHANNELS = 2
) (
    input  logic                                    clk,
    input  logic                                    rst,
    input  logic                                    page_valid,
    input  select_types::hit_page_t                 page,
    output logic                     [CHANNELS-1:0] take,
    input  select_types::hit_body_t  [CHANNELS-1:0] body,
    output logic                                    group_valid,
    output select_types::hit_group_t                group
);

  import select_types::*;

  localparam int NEAR = CHANNELS < 8 ? CHANNELS : 8;  // lanes whose hits go together first
  localparam int FAR = CHANNELS / NEAR;

  logic valid;
  hit_page_t asked, read;
  hit_body_t [FAR-1:0] read_body;
  always_ff @(posedge clk) begin
    valid <= page_valid && !page.finish && !rst;
    for (int i = 0; i < CHANNELS; ++i) take[i] <= page_valid && !page.finish && page.lane == 5'(i) && !rst;
    asked <= page;
    group_valid <= valid && !rst;
    read <= asked;
    for (int f = 0; f < FAR; ++f) read_body[f] <= body[f*NEAR+int'(asked.lane)%NEAR];
  end
  assign group = '{page: read, body: read_body[int'(read.lane)/NEAR%FAR]};

  if (CHANNELS > 8 && CHANNELS % 8 != 0) $error("8 lanes go together");

endmodule
