// One lane's part of the selector: its score banks, sweeps, hits and lists.
//
// Streams: scores in, lists and hits out; commands, which are registered here. `value` and `best` answer a
// read command 2 cycles later. Latency and stalls: those of score_store, sweep_unit, hit_finder and list_store.
module select_lane #(
    parameter int CHANNELS = 2,
    parameter int G = 4,
    parameter int S = 16,
    parameter int BANK_WORDS = 4096,
    parameter int SUM = 28
) (
    input  logic                           clk,
    input  logic                           rst,
    input  logic [4:0]                     lane_id,
    input  logic                           score_valid,
    output logic                           score_ready,
    input  card_types::score_head_t        score_head,
    input  logic [S*16-1:0]                score_y,
    output logic                           list_valid,
    input  logic                           list_ready,
    /* verilator lint_off SYMRSVDWORD */  // a word of C++ alone
    output card_types::list_entry_t        list,
    /* verilator lint_on SYMRSVDWORD */
    input  select_types::sweep_command_t   sweep_command,
    input  select_types::read_command_t    read_command,
    input  select_types::best_write_t      best_write,
    input  select_types::collect_command_t collect_command,
    input  select_types::list_write_t      list_write,
    output logic [1:0]                     filled,
    output logic                           sweep_done,
    output logic                           value_valid,
    output logic [SUM-1:0]                 value,
    output logic                           best_valid,
    output logic [15:0]                    best,
    output logic                           page_valid,
    input  logic                           page_ready,
    output select_types::hit_page_t        page_of_hits,
    input  logic                           body_take,
    output select_types::hit_body_t        body
);

  import select_types::*;

  localparam int ADDRESS = $clog2(BANK_WORDS);
  localparam int COUNT = ADDRESS + 6;
  localparam int LIST = $clog2(BANK_WORDS / 2);

  logic beat_valid, beat_bank, beat_first, beat_ranked;
  card_types::score_head_t beat_head;
  logic [S*16-1:0] beat_y;
  logic freed, freed_bank, ranks_done;
  logic [1:0][ADDRESS+9:0] candidates;
  logic [1:0][ADDRESS+3:0] pages;
  logic [1:0][ADDRESS+1:0] held;
  logic maxima_valid, maxima_bank, maxima_counts;
  logic [ADDRESS-1:0] maxima_word;
  logic [2:0] maxima_entry;
  logic [G-1:0][15:0] largest, maxima_y;
  logic sweep_read, sweep_bank, rank_write, rank_bank, hit_read, hit_bank;
  logic [ADDRESS:0] sweep_address, rank_address, hit_address;
  logic [8*G*16-1:0] sweep_word, rank_data, hit_word;
  logic [7:0] sweep_counts;
  logic [COUNT-1:0] bin;
  logic [TOTAL-1:0] total;
  logic list_read, list_slot;
  logic [LIST-1:0] list_page;
  logic [ROW-1:0] list_row;

  sweep_command_t sweep;
  read_command_t read;
  best_write_t best_in;
  list_write_t list_in;
  always_ff @(posedge clk) begin
    sweep <= sweep_command;
    read <= read_command;
    best_in <= best_write;
    list_in <= list_write;
    value_valid <= (read.candidates || read.pages || read.bin || read.total) && !rst;
    value <= read.candidates ? SUM'(candidates[read.bank]) : read.pages ? SUM'(pages[read.bank]) :
        read.total ? SUM'(total[int'(read.piece)*PIECE+:PIECE]) : SUM'(bin);
    best_valid <= read.best && !rst;
    if (rst) begin
      sweep.start <= 1'b0;
      sweep.tells <= 1'b0;
      read <= '0;
      best_in.valid <= 1'b0;
      list_in <= '0;
    end
  end

  score_store #(
      .G(G),
      .S(S),
      .BANK_WORDS(BANK_WORDS)
  ) scores (
      .clk,
      .rst,
      .score_valid,
      .score_ready,
      .score_head,
      .score_y,
      .beat_valid,
      .beat_bank,
      .beat_first,
      .beat_ranked,
      .beat_head,
      .beat_y,
      .maxima_valid,
      .maxima_bank,
      .maxima_word,
      .maxima_entry,
      .maxima_counts,
      .maxima_y,
      .filled,
      .take(read.take),
      .take_bank(read.bank),
      .release_valid(freed),
      .release_bank(freed_bank),
      .ranks_done,
      .ranks_bank(rank_bank),
      .candidates,
      .pages,
      .held,
      .sweep_read,
      .sweep_bank,
      .sweep_address,
      .sweep_y(sweep_word),
      .sweep_counts,
      .rank_write,
      .rank_bank,
      .rank_address,
      .rank_data,
      .hit_read,
      .hit_bank,
      .hit_address,
      .hit_word
  );

  best_store #(
      .G(G),
      .S(S)
  ) bests (
      .clk,
      .rst,
      .beat_valid,
      .beat_bank,
      .beat_first,
      .beat_head,
      .beat_y,
      .largest,
      .bank(read.bank),
      .query(read.query),
      .value(best)
  );

  page_maxima #(
      .G(G),
      .BANK_WORDS(BANK_WORDS)
  ) maxima (
      .clk,
      .rst,
      .beat_valid,
      .beat_bank,
      .beat_first,
      .beat_head,
      .largest,
      .valid(maxima_valid),
      .bank(maxima_bank),
      .word(maxima_word),
      .entry(maxima_entry),
      .counts(maxima_counts),
      .y(maxima_y)
  );

  sweep_unit #(
      .G(G),
      .BANK_WORDS(BANK_WORDS)
  ) sweeps (
      .clk,
      .rst,
      .command(sweep),
      .best(best_in),
      .pages(held),
      .bin_shift(read.bin),
      .bin,
      .total,
      .done(sweep_done),
      .beat_valid(beat_valid && beat_ranked),
      .beat_first,
      .beat_bank,
      .beat_head,
      .ranks_done,
      .read(sweep_read),
      .read_bank(sweep_bank),
      .read_address(sweep_address),
      .word(sweep_word),
      .word_counts(sweep_counts),
      .rank_write,
      .rank_bank,
      .rank_address,
      .rank_data
  );

  hit_finder #(
      .CHANNELS(CHANNELS),
      .G(G),
      .BANK_WORDS(BANK_WORDS)
  ) hits (
      .clk,
      .rst,
      .lane_id,
      .command(collect_command),
      .pages(held),
      .freed,
      .freed_bank,
      .read(hit_read),
      .read_bank(hit_bank),
      .read_address(hit_address),
      .word(hit_word),
      .list_read,
      .list_slot,
      .list_page,
      .list_row,
      .page_valid,
      .page_ready,
      .page_of_hits,
      .body_take,
      .body
  );

  list_store #(
      .BANK_WORDS(BANK_WORDS)
  ) lists (
      .clk,
      .rst,
      .lane_id,
      .write(list_in),
      .list_valid,
      .list_ready,
      .list,
      .read(list_read),
      .read_slot(list_slot),
      .read_page(list_page),
      .row(list_row)
  );

endmodule
