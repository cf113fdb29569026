// Merges the pages with hits of all lanes into page order: rows rise, in a row the lanes.
//
// Streams: one in a lane, whose ready is a register, one out; a page a cycle, latency $clog2(CHANNELS) + 1 cycles. A lane's
// pages come in rising rows; the last one says that the lane has no more, and the last one out that no lane has. Only the
// output stalls it.
//
// Equals the order of entries in layout::TopK's last loop.
module merge_tree #(
    parameter int CHANNELS = 2
) (
    input  logic                                    clk,
    input  logic                                    rst,
    input  logic                     [CHANNELS-1:0] in_valid,
    output logic                     [CHANNELS-1:0] in_ready,
    input  select_types::hit_page_t [CHANNELS-1:0] in_page,
    output logic                                    out_valid,
    input  logic                                    out_ready,
    output select_types::hit_page_t                out_page
);

  import select_types::*;

  // Node n has the children 2n and 2n + 1; lane i is node CHANNELS + i; node 1 is the root.
  logic valid[1:2*CHANNELS-1];
  logic ready[1:2*CHANNELS-1];
  hit_page_t page[1:2*CHANNELS-1];

  for (genvar i = 0; i < CHANNELS; ++i) begin : lane
    skid #(
        .WIDTH($bits(hit_page_t))
    ) buffer (
        .clk,
        .rst,
        .in_valid(in_valid[i]),
        .in_ready(in_ready[i]),
        .in_data(in_page[i]),
        .out_valid(valid[CHANNELS+i]),
        .out_ready(ready[CHANNELS+i]),
        .out_data(page[CHANNELS+i])
    );
  end

  for (genvar n = 1; n < CHANNELS; ++n) begin : node
    merge_pair merge (
        .clk,
        .rst,
        .a_valid(valid[2*n]),
        .a_ready(ready[2*n]),
        .a(page[2*n]),
        .b_valid(valid[2*n+1]),
        .b_ready(ready[2*n+1]),
        .b(page[2*n+1]),
        .out_valid(valid[n]),
        .out_ready(ready[n]),
        .out(page[n])
    );
  end

  assign out_valid = valid[1];
  assign out_page = page[1];
  assign ready[1] = out_ready;

endmodule
