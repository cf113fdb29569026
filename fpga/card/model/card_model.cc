#include "fpga/card/model/card_model.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "fpga/card/model/select_model.h"
#include "proto/layout/card_hash.h"
#include "proto/layout/layout_hash.h"
#include "proto/layout/ring.h"

namespace mnemo::card::model {
namespace {

using layout::CardIndex;
using layout::Completion;
using layout::Descriptor;
using layout::kCardBeatBytes;

template <typename T>
std::span<uint8_t> BytesOf(T& value) {
  return {reinterpret_cast<uint8_t*>(&value), sizeof(value)};
}
template <typename T>
std::span<const uint8_t> BytesOf(const T& value) {
  return {reinterpret_cast<const uint8_t*>(&value), sizeof(value)};
}
std::span<const uint8_t> BytesOf(const std::vector<uint32_t>& values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(values[0])};
}
std::span<const uint8_t> BytesOf(const std::vector<int32_t>& values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(values[0])};
}

constexpr uint32_t kQueueBytes = uint32_t{layout::kCardQueues} * layout::kCardQueueBytes;

uint32_t Half(uint64_t pair, uint32_t offset) {
  return static_cast<uint32_t>(offset % 8 == 0 ? pair : pair >> 32);
}

bool Within(uint32_t offset, uint32_t from, uint32_t bytes) {
  return offset >= from && offset - from < bytes;
}

}  // namespace

CardModel::CardModel(const Shape& shape, const SparseMemory* card, HostMemory* host)
    : shape_(shape), card_(card), host_(host) {}

uint32_t CardModel::ReadRegister(uint32_t offset) const {
  if (offset % 4 != 0 || offset >= layout::kCardRegisterBytes) {
    return 0;
  }
  if (Within(offset, layout::kCardRegChannels, 8 * shape_.channels)) {
    return channels_[(offset - layout::kCardRegChannels) / 4];
  }
  if (Within(offset, layout::kCardRegCounters, 8 * layout::kCardCounters)) {
    const uint32_t counter = (offset - layout::kCardRegCounters) / 8;
    uint64_t value = counters_[counter];
    if (counter == layout::kCardQueueDepth) {
      value = 0;
      for (const Queue& queue : queues_) {
        value += Depth(queue);
      }
    }
    return Half(value, offset);
  }
  if (Within(offset, layout::kCardRegQueues, kQueueBytes)) {
    const uint32_t at = offset - layout::kCardRegQueues;
    const Queue& queue = queues_[at / layout::kCardQueueBytes];
    const bool enable = at % layout::kCardQueueBytes == layout::kCardQueueEnable;
    return queue.registers.At(at % layout::kCardQueueBytes) |
           (enable && queue.stopped ? uint32_t{layout::kCardQueueStopped} : 0);
  }
  if (Within(offset, layout::kCardRegLanes, shape_.channels * layout::kCardLaneBytes)) {
    const uint32_t at = offset - layout::kCardRegLanes;
    const uint32_t counter = at % layout::kCardLaneBytes / 8;
    return counter < layout::kCardLaneCounters ? Half(lanes_[at / layout::kCardLaneBytes][counter], offset)
                                               : 0;
  }
  return ReadOnly(offset);
}

uint32_t CardModel::ReadOnly(uint32_t offset) const {
  switch (offset) {
    case layout::kCardRegInterruptGlobal:
      return interrupts_used_ ? 1 : 0;
    case layout::kCardRegInterruptEnable:
      return interrupt_enable_;
    case layout::kCardRegInterruptStatus:
      return interrupt_status_;
    case layout::kCardRegMagic:
      return layout::kCardMagic;
    case layout::kCardRegVersion:
      return layout::kCardMajor << 16 | layout::kCardMinor;
    case layout::kCardRegCardHash:
    case layout::kCardRegCardHash + 4:
      return Half(layout::kCardHash, offset);
    case layout::kCardRegLayoutHash:
    case layout::kCardRegLayoutHash + 4:
      return Half(layout::kLayoutHash, offset);
    case layout::kCardRegShape:
      return shape_.channels | shape_.queries << 8 | shape_.scores << 16;
    case layout::kCardRegBankWords:
      return shape_.bank_words;
    case layout::kCardRegScoreOps:
      return kServedScoreOps;
    case layout::kCardRegFormats:
      return kServedFormats;
    case layout::kCardRegDims:
      return kServedDims;
    case layout::kCardRegMaxGroup:
      return MaxGroup(shape_) | kMostEntries << 16;
    case layout::kCardRegControl:
      return control_;
    case layout::kCardRegState:
      return State();
    case layout::kCardRegWatchdog:
      return watchdog_;
    case layout::kCardRegFailure:
      return failure_;
    case layout::kCardRegPeriod:
      return period_;
    default:
      return 0;
  }
}

uint32_t CardModel::State() const {
  uint32_t state = failure_ != layout::kCardFailureNone ? layout::kCardStateFailed : 0;
  const bool waits = Takes() && std::any_of(queues_.begin(), queues_.end(),
                                            [&](const Queue& queue) { return Depth(queue) != 0; });
  state |= waits ? 0 : layout::kCardStateIdle;
  return state | ((control_ & layout::kCardControlQuiesce) != 0 ? layout::kCardStateQuiesced : 0);
}

void CardModel::WriteRegister(uint32_t offset, uint32_t value) {
  if (offset % 4 != 0) {
    return;
  }
  if (Within(offset, layout::kCardRegChannels, 8 * shape_.channels)) {
    channels_[(offset - layout::kCardRegChannels) / 4] = value;
  } else if (Within(offset, layout::kCardRegQueues, kQueueBytes)) {
    const uint32_t at = offset - layout::kCardRegQueues;
    WriteQueue(at / layout::kCardQueueBytes, at % layout::kCardQueueBytes, value);
  } else {
    WriteControl(offset, value);
  }
  RaiseInterrupt();
}

void CardModel::WriteControl(uint32_t offset, uint32_t value) {
  switch (offset) {
    case layout::kCardRegInterruptGlobal:
      interrupts_used_ = (value & 1) != 0;
      break;
    case layout::kCardRegInterruptEnable:
      interrupt_enable_ = value & (layout::kCardInterruptCompletion | layout::kCardInterruptFailure);
      break;
    case layout::kCardRegInterruptStatus:
      interrupt_status_ &= ~value;
      break;
    case layout::kCardRegControl:
      control_ = value & (layout::kCardControlRun | layout::kCardControlQuiesce);
      if ((value & layout::kCardControlReset) != 0) Reset();
      break;
    case layout::kCardRegWatchdog:
      watchdog_ = value;
      break;
    case layout::kCardRegPeriod:
      period_ = value;
      break;
    case layout::kCardRegAwait:
      awaited_ = value;
      break;
    default:
      break;
  }
}

void CardModel::RaiseInterrupt() {
  if (!awaited_.has_value()) return;
  const Queue& queue = queues_[0];
  const bool completed = queue.registers.At(layout::kCardQueueEnable) != 0 &&
                         static_cast<int32_t>(queue.completion_head - *awaited_) > 0;
  const uint32_t news = ((completed ? uint32_t{layout::kCardInterruptCompletion} : 0) |
                         (failure_ != layout::kCardFailureNone ? layout::kCardInterruptFailure : 0)) &
                        interrupt_enable_;
  if (news == 0) return;
  interrupt_status_ |= news;
  awaited_.reset();
}

void CardModel::WriteQueue(uint32_t queue, uint32_t offset, uint32_t value) {
  Queue& of = queues_[queue];
  const bool enabled = of.registers.At(layout::kCardQueueEnable) != 0;
  if (enabled && offset != layout::kCardQueueEnable && offset != layout::kCardQueueHead) {
    return;
  }
  if (offset == layout::kCardQueueEnable) {
    value &= layout::kCardQueueEnabled;
    of.stopped = of.stopped && value != 0;
  }
  of.registers.At(offset) = value;
  if (offset == layout::kCardQueueEnable && value != 0 && !enabled) {
    places_ = {};
    // The queue begins where the rings' headers say: the descriptors' tail, the completions' head.
    of.stopped = !std::has_single_bit(of.registers.At(layout::kCardQueueSlots));
    of.next_seq = of.registers.At(layout::kCardQueueSeq);
    const uint64_t ring = of.registers.Pair(layout::kCardQueueRing);
    const uint64_t completions = of.registers.Pair(layout::kCardQueueCompletions);
    if (ReadHost(ring + offsetof(layout::RingHeader, tail), BytesOf(of.tail))) {
      ReadHost(completions + offsetof(layout::RingHeader, head), BytesOf(of.completion_head));
    }
  }
  Look(&of);
}

void CardModel::Reset() {
  control_ = watchdog_ = period_ = 0;
  interrupts_used_ = false;
  interrupt_enable_ = interrupt_status_ = 0;
  awaited_.reset();
  failure_ = layout::kCardFailureNone;
  channels_ = {};
  queues_ = {};
  turn_ = 0;
  places_ = {};
  latest_beats_ = 0;
  prepared_ = false;
  counters_ = {};
  lanes_ = {};
}

bool CardModel::Takes() const {
  return (control_ & (layout::kCardControlRun | layout::kCardControlQuiesce)) == layout::kCardControlRun &&
         failure_ == layout::kCardFailureNone;
}

uint32_t CardModel::Depth(const Queue& queue) const {
  const bool in_use = queue.registers.At(layout::kCardQueueEnable) != 0 && !queue.stopped;
  return in_use ? queue.registers.At(layout::kCardQueueHead) - queue.tail : 0;
}

void CardModel::Look(Queue* queue) {
  QueueRegisters& registers = queue->registers;
  if (registers.At(layout::kCardQueueEnable) == 0 || queue->stopped) {
    return;
  }
  if (registers.At(layout::kCardQueuePoll) != 0 && Takes()) {
    const uint64_t ring = registers.Pair(layout::kCardQueueRing);
    if (!ReadHost(ring + offsetof(layout::RingHeader, head), BytesOf(registers.At(layout::kCardQueueHead)))) {
      return;
    }
  }
  queue->stopped = Depth(*queue) > registers.At(layout::kCardQueueSlots);
}

bool CardModel::Step() {
  const bool took = StepQueues();
  RaiseInterrupt();
  return took;
}

bool CardModel::StepQueues() {
  for (uint32_t n = 0; n < layout::kCardQueues && Takes(); ++n) {
    const uint32_t number = (turn_ + n) % layout::kCardQueues;
    Queue& queue = queues_[number];
    Look(&queue);
    if (Takes() && Depth(queue) != 0) {
      turn_ = (number + 1) % layout::kCardQueues;
      Take(&queue);
      return true;
    }
  }
  return false;
}

void CardModel::Take(Queue* queue) {
  const QueueRegisters& registers = queue->registers;
  const uint64_t ring = registers.Pair(layout::kCardQueueRing);
  const uint32_t slot = queue->tail & (registers.At(layout::kCardQueueSlots) - 1);
  // A descriptor's fetch and its first queries are hidden by the descriptor before it.
  Work work{.descriptor = {}, .index = {}, .timeline = Timeline(0)};
  const Descriptor& d = work.descriptor;
  if (!ReadHost(ring + sizeof(layout::RingHeader) + uint64_t{slot} * sizeof(d), BytesOf(work.descriptor))) {
    return;
  }
  std::optional<Place>& place = places_[d.index_id % kPlaces];
  const Place wanted{static_cast<uint32_t>(queue - queues_.data()), d.index_id, d.index_generation};
  if (!prepared_) work.timeline = Timeline(FetchTime(period_, place == wanted));
  ++queue->tail;
  ++counters_[layout::kCardDescriptors];
  uint32_t tokens = 0;
  if (!WriteHost(ring + offsetof(layout::RingHeader, tail), BytesOf(queue->tail)) ||
      !FetchIndex(*queue, d, &work.index, &tokens)) {
    return;
  }
  if (work.index.exists == 1) place = Place{wanted.queue, wanted.index_id, work.index.generation};
  const layout::Verdict verdict = CheckDescriptor(d, registers, queue->next_seq, work.index, tokens, shape_);
  // After a gap every descriptor of the queue is out of sequence, until it is set up anew.
  queue->next_seq += d.seq == queue->next_seq ? 1 : 0;
  work.completion.index_id = d.index_id;
  work.completion.energy_uj = layout::kEnergyUnknown;
  work.completion.status = verdict.status;
  work.completion.detail = verdict.detail;
  work.completion.seq = d.seq;
  if (verdict.status == layout::kStatusOk) {
    const auto address = [&](uint32_t region, uint32_t offset) {
      return registers.Pair(region == 0 ? layout::kCardQueueRegion0 : layout::kCardQueueRegion1) +
             uint64_t{offset} * layout::kUnitBytes;
    };
    work.payload_address = address(d.payload_region, d.payload_offset);
    work.result_address = address(d.result_region, d.result_offset);
    work.completion.watermark = tokens;
    if (!Execute(&work)) {
      return;
    }
  } else {
    ++counters_[layout::kCardRefused];
  }
  prepared_ = std::any_of(queues_.begin(), queues_.end(), [&](const Queue& of) { return Depth(of) != 0; });
  // The answer's way to host memory is hidden by a descriptor that follows.
  const uint64_t cycles = work.timeline.selected() +
                          (prepared_ ? 0 : WriteTime(period_) + CompletionTime(period_) + HeadTime(period_));
  counters_[layout::kCardCyclesTotal] += cycles;
  counters_[layout::kCardCyclesBusy] += cycles;
  WriteCompletion(queue, work.completion);
}

bool CardModel::FetchIndex(const Queue& queue, const Descriptor& descriptor, CardIndex* index,
                           uint32_t* tokens) {
  if (descriptor.index_id >= queue.registers.At(layout::kCardQueueIndexes)) {
    return true;
  }
  const uint64_t table = queue.registers.Pair(layout::kCardQueueTable);
  if (!ReadHost(table + uint64_t{descriptor.index_id} * sizeof(*index), BytesOf(*index))) {
    return false;
  }
  if (index->exists != 1 || descriptor.layer_slot >= index->layer_slots) {
    return true;
  }
  return ReadHost(index->tokens_address + uint64_t{descriptor.layer_slot} * sizeof(*tokens),
                  BytesOf(*tokens));
}

bool CardModel::Execute(Work* work) {
  const Descriptor& d = work->descriptor;
  const uint64_t start = work->timeline.scanned();
  const uint64_t beats = layout::QueryBlockBytes(d.group, work->index.dim) / kCardBeatBytes;
  if (!prepared_) work->timeline.Wait(LoadTime(period_, beats == latest_beats_ && beats <= kMostEarlyBeats));
  if (d.select_op != layout::kSelectLatest) latest_beats_ = beats;
  for (uint32_t number = 0; number < uint32_t{d.queries} * d.heads; ++number) {
    if (!ExecuteBlock(work, number)) {
      return false;
    }
  }
  const uint64_t period = period_;
  const auto nanoseconds = [&](uint64_t cycles) { return static_cast<uint32_t>(cycles * period >> 8); };
  work->completion.score_ns = nanoseconds(work->timeline.scanned() - start);
  work->completion.select_ns =
      nanoseconds(work->timeline.selected() + WriteTime(period_) - work->timeline.scanned());
  return true;
}

bool CardModel::ExecuteBlock(Work* work, uint32_t number) {
  const Descriptor& d = work->descriptor;
  if (d.select_op == layout::kSelectLatest) {
    return WriteResult(work, number, LatestEntries(d));
  }
  const uint32_t head = d.first_head + number % d.heads;
  const std::optional<std::vector<Query>> queries = LoadQueries(*work, number);
  if (!queries.has_value()) {
    return false;
  }
  if (d.select_op == layout::kSelectWeightedSum) {
    return SumBlock(work, number, *queries);
  }
  Kept kept;
  std::vector<ListEntry> list;
  std::optional<Hits> hits;
  for (const Stage stage : StagesOf(d, shape_)) {
    const SelectJob select = SelectJobOf(d, work->index, stage);
    hits = RunJob(work, ScanJobOf(d, work->index, shape_, head, stage), select, *queries, list, &kept);
    if (!hits.has_value()) return false;
    if (select.to_list) list = hits->list;
  }
  return WriteResult(work, number, *hits);
}

std::optional<std::vector<Query>> CardModel::LoadQueries(const Work& work, uint32_t number) {
  const Descriptor& d = work.descriptor;
  const uint32_t dim = work.index.dim;
  std::vector<uint8_t> block(layout::QueryBlockBytes(d.group, dim));
  if (!ReadHost(work.payload_address + uint64_t{number} * block.size(), block)) {
    return std::nullopt;
  }
  const Kind kind = d.format == layout::kFormatBounds ? Kind::kBounds : Kind::kCodes;
  std::vector<Query> queries;
  for (uint32_t g = 0; g < d.group; ++g) {
    layout::QueryParam param;
    std::memcpy(&param, block.data() + layout::QueryParamOffset(d.group, dim) + g * sizeof(param),
                sizeof(param));
    const auto* codes = reinterpret_cast<const int8_t*>(block.data()) + size_t{g} * dim;
    queries.push_back(MakeQueryTables({codes, dim}, param, kind));
  }
  return queries;
}

std::vector<LaneWork> CardModel::WorkOf(const ScanJob& scan, const ScoreStore& store) const {
  const uint64_t beats = scan.first_beats + scan.second_beats;
  std::vector<LaneWork> lanes(shape_.channels);
  uint64_t row = UINT64_MAX;
  for (const ListEntry& page : store.pages) {
    LaneWork& lane = lanes[page.page % shape_.channels];
    ++lane.pages;
    lane.beats += beats;
    // Lanes read beats of their lists side by side.
    const uint64_t of = page.page / shape_.channels / layout::kCardListRowsOfBeat;
    if (of != row) {
      row = of;
      for (LaneWork& each : lanes) {
        ++each.list_beats;
      }
    }
  }
  return lanes;
}

bool CardModel::Watch(uint64_t cycles) {
  return watchdog_ == 0 || cycles <= watchdog_ || Fail(layout::kCardFailureWatchdog);
}

std::optional<Hits> CardModel::RunJob(Work* work, const ScanJob& scan, const SelectJob& select,
                                      std::span<const Query> queries, std::span<const ListEntry> list,
                                      Kept* kept) {
  ++counters_[layout::kCardJobs];
  ScoreStore store;
  if (!ScanPages(scan, queries, list, &store)) {
    return std::nullopt;
  }
  Hits hits = Select(select, store, kept);
  hits.top_octave = store.top_octave;
  work->completion.bytes_read += store.pages.size() * (scan.first_beats + scan.second_beats) * kCardBeatBytes;
  const std::vector<LaneWork> lanes = WorkOf(scan, store);
  uint64_t scan_cycles = 0;
  uint64_t fullest = 0;
  for (const LaneWork& lane : lanes) {
    scan_cycles = std::max(scan_cycles, ScanTime(scan, shape_, lane, period_).total);
    fullest = std::max(fullest, lane.pages);
  }
  const SelectCycles select_cycles =
      SelectTime(select, scan.passes, fullest, HitWorkOf(select, hits, shape_.channels));
  const uint64_t page_words = select.relu ? 4 : (select.entries + 7) / 8 * uint64_t{scan.passes};
  const bool both = !scan.maxima && !select.kept && fullest * page_words > shape_.bank_words;
  const uint64_t waited = work->timeline.bank_wait();
  const uint64_t cycles = work->timeline.Add(scan_cycles, select_cycles, scan.listed, both);
  CountJob(scan, work->timeline.bank_wait() - waited, lanes);
  return Watch(cycles) ? std::optional(std::move(hits)) : std::nullopt;
}

bool CardModel::RunValues(Work* work, const ScanJob& scan, std::span<const Query> queries, ScoreStore* store,
                          uint64_t* cycles) {
  if (!ScanPages(scan, queries, {}, store)) {
    return false;
  }
  work->completion.bytes_read += store->pages.size() * scan.first_beats * kCardBeatBytes;
  const uint64_t scan_cycles = ValuesTime(scan, store->pages.size());
  work->timeline.Add(scan_cycles, {}, true);
  CountJob(scan, 0, WorkOf(scan, *store));
  *cycles += scan_cycles;
  return true;
}

bool CardModel::SumBlock(Work* work, uint32_t number, std::span<const Query> queries) {
  const Descriptor& d = work->descriptor;
  const uint32_t dim = work->index.dim;
  const uint32_t head = d.first_head + number % d.heads;
  const uint32_t dims = SumDims(shape_, dim);
  SelectJob all = SelectJobOf(d, work->index, Stage::kOnly);
  all.k = UINT32_MAX;
  Kept kept;
  WeightedSum sum;
  uint64_t cycles = 0;
  const uint64_t jobs = counters_[layout::kCardJobs];
  for (uint32_t first = 0; first < dim; first += dims) {
    for (const Part part : {Part::kTokens, Part::kBases}) {
      // Ranks are not kept: they are made anew for each scan of values.
      const std::optional<Hits> hits =
          RunJob(work, ScanJobOf(d, work->index, shape_, head, Stage::kOnly), all, queries, {}, &kept);
      if (!hits.has_value()) return false;
      if (first == 0 && part == Part::kTokens) sum = BeginSum(hits->ranks, hits->top_octave, dim);
      const std::vector<Query> units = UnitQueries(dim, first, dims, hits->top_octave);
      ScoreStore values;
      if (!RunValues(work, ValueJobOf(d, work->index, shape_, head, part), units, &values, &cycles)) {
        return false;
      }
      AddValues(values, hits->ranks, first, dims, &sum);
    }
  }
  counters_[layout::kCardJobs] = jobs + 1;  // one for the whole block
  return Watch(cycles) && WriteSum(work, number, sum);
}

bool CardModel::ScanPages(const ScanJob& job, std::span<const Query> queries, std::span<const ListEntry> list,
                          ScoreStore* store) {
  std::vector<uint8_t> read;
  const auto scan = [&](ListEntry page) {
    if (!ReadPage(job, page.page, &read)) {
      return false;
    }
    store->pages.push_back(page);
    ScorePage(job, read, queries, &store->y);
    store->top_octave = std::max(store->top_octave, TopOctave(read));
    if (job.relu) {
      ReluPage(store->y, queries, &store->ranks);
      store->y.clear();
    }
    return true;
  };
  if (job.listed) {
    return std::all_of(list.begin(), list.end(), scan);
  }
  for (uint32_t page = job.first_page; !job.none && page <= job.last_page; ++page) {
    if (!scan({page, RangeMask(job, page)})) {
      return false;
    }
  }
  return true;
}

bool CardModel::ReadPage(const ScanJob& job, uint32_t page, std::vector<uint8_t>* read) {
  const uint32_t lane = page % shape_.channels;
  const uint32_t row = page / shape_.channels;
  std::array<uint8_t, kCardBeatBytes> list;
  if (!ReadBeats(lane, uint64_t{job.list_beat} + row / layout::kCardListRowsOfBeat, list)) {
    return false;
  }
  uint32_t extent;
  std::memcpy(&extent, list.data() + row % layout::kCardListRowsOfBeat * sizeof(extent), sizeof(extent));
  read->resize(size_t{job.first_beats + job.second_beats} * kCardBeatBytes);
  const std::span<uint8_t> all(*read);
  const size_t first_bytes = size_t{job.first_beats} * kCardBeatBytes;
  const uint64_t block = uint64_t{extent} + job.block_beat;
  return ReadBeats(lane, block, all.first(first_bytes)) &&
         (job.second_beats == 0 || ReadBeats(lane, block + job.second_at, all.subspan(first_bytes)));
}

bool CardModel::ReadBeats(uint32_t lane, uint64_t beat, std::span<uint8_t> to) {
  const size_t base = 2 * size_t{lane};
  const uint64_t beats = to.size() / kCardBeatBytes;
  const uint64_t length = channels_[base + 1];
  if (beats > length || beat > length - beats) {
    return Fail(layout::kCardFailureExtent | lane << 8);
  }
  card_->Read((channels_[base] + beat) * kCardBeatBytes, to);
  return true;
}

bool CardModel::WriteResult(Work* work, uint32_t number, const Hits& hits) {
  const Descriptor& d = work->descriptor;
  const uint64_t at = work->result_address + number * layout::ResultBlockBytes(d.select_op, d.flags, d.k, 0);
  const bool ranks = (d.flags & layout::kFlagRanks) != 0;
  const layout::ResultHeader header = {.count = static_cast<uint32_t>(hits.ids.size()),
                                       .candidates = hits.candidates,
                                       .last_rank = hits.last_rank,
                                       .flags = hits.cut ? uint32_t{layout::kResultCut} : 0};
  if (!WriteHost(at, BytesOf(header)) || !WriteHost(at + sizeof(header), BytesOf(hits.ids)) ||
      (ranks && !WriteHost(at + layout::RanksOffset(d.k), BytesOf(hits.ranks)))) {
    return false;
  }
  work->completion.count += header.count;
  work->completion.bytes_written += sizeof(header) + uint64_t{header.count} * (ranks ? 8 : 4);
  return true;
}

bool CardModel::WriteSum(Work* work, uint32_t number, const WeightedSum& sum) {
  const Descriptor& d = work->descriptor;
  const uint64_t bytes = layout::ResultBlockBytes(d.select_op, d.flags, d.k, work->index.dim);
  const uint64_t at = work->result_address + number * bytes;
  const std::span<const uint8_t> sums(reinterpret_cast<const uint8_t*>(sum.sum.data()),
                                      sum.sum.size() * sizeof(sum.sum[0]));
  if (!WriteHost(at, BytesOf(sum.header)) || !WriteHost(at + sizeof(sum.header), sums)) {
    return false;
  }
  work->completion.count += sum.header.count;
  work->completion.bytes_written += bytes;
  return true;
}

bool CardModel::WriteCompletion(Queue* queue, const Completion& completion) {
  constexpr size_t kLast = offsetof(Completion, status);
  const uint64_t ring = queue->registers.Pair(layout::kCardQueueCompletions);
  const uint32_t slot = queue->completion_head & (queue->registers.At(layout::kCardQueueSlots) - 1);
  const uint64_t at = ring + sizeof(layout::RingHeader) + uint64_t{slot} * sizeof(completion);
  ++queue->completion_head;
  return WriteHost(at, BytesOf(completion).first(kLast)) &&
         WriteHost(at + kLast, BytesOf(completion).subspan(kLast)) &&
         WriteHost(ring + offsetof(layout::RingHeader, head), BytesOf(queue->completion_head));
}

void CardModel::CountJob(const ScanJob& scan, uint64_t bank_wait, const std::vector<LaneWork>& lanes) {
  for (uint32_t lane = 0; lane < shape_.channels; ++lane) {
    const ScanCycles cycles = ScanTime(scan, shape_, lanes[lane], period_);
    std::array<uint64_t, layout::kCardLaneCounters>& counters = lanes_[lane];
    counters[layout::kCardLaneBeats] += lanes[lane].beats + lanes[lane].list_beats;
    counters[layout::kCardLaneStallMemory] += cycles.stall_memory;
    counters[layout::kCardLaneStallScorers] += cycles.stall_scorers;
    counters[layout::kCardLaneStallBank] += bank_wait;
    counters[layout::kCardLaneBusy] += cycles.total + bank_wait;
  }
}

bool CardModel::ReadHost(uint64_t address, std::span<uint8_t> to) {
  counters_[layout::kCardHostBytesRead] += to.size();
  return host_->Read(address, to) || Fail(layout::kCardFailureHost);
}

bool CardModel::WriteHost(uint64_t address, std::span<const uint8_t> from) {
  counters_[layout::kCardHostBytesWritten] += from.size();
  return host_->Write(address, from) || Fail(layout::kCardFailureHost);
}

bool CardModel::Fail(uint32_t failure) {
  if (failure_ == layout::kCardFailureNone) {
    failure_ = failure;
  }
  return false;
}

}  // namespace mnemo::card::model
