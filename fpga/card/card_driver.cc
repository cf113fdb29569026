#include "fpga/card/card_driver.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <thread>
#include <utility>

#include "fpga/card/card_counters.h"
#include "proto/layout/card.h"
#include "proto/layout/layout_hash.h"
#include "proto/layout/payload.h"
#include "proto/layout/record.h"

namespace mnemo::card {

using layout::Completion;
using layout::kPageTokens;
using memory_device::MemoryDeviceOptions;
using memory_device::Operation;
using std::chrono::steady_clock;

namespace {

constexpr uint16_t kEpoch = 1;
constexpr uint32_t kWordsOfPage = 8;  // of a score bank, for each page and pass of codes
constexpr uint32_t kPagesOfWord = 8;  // whose largest scores of a pass a word has
constexpr uint32_t kSilentPolls = 8;  // after which the state is read
constexpr uint32_t kPeriodCycles = 256;
constexpr std::chrono::microseconds kSpinTime{50};     // before an interrupt is asked for
constexpr std::chrono::milliseconds kLongestWait{10};  // for an interrupt, should one be lost

constexpr uint32_t Bit(uint32_t n) { return 1U << n; }

uint32_t PassesOf(const CardShape& shape, uint32_t max_group) {
  return (max_group + shape.queries - 1) / shape.queries;
}

// Pages of an index whose every scan fits a score bank.
uint64_t PagesThatFit(const CardShape& shape, uint32_t max_group) {
  return uint64_t{shape.bank_words / (kWordsOfPage * PassesOf(shape, max_group))} * shape.channels.size();
}

// Whether a scan that does not fit is served, by its pages: scores of two pages fit then.
bool ServesLongScans(const CardShape& shape, uint32_t max_group) {
  return 2 * kWordsOfPage * PassesOf(shape, max_group) <= shape.bank_words;
}

// Pages of a lane that such a scan may list. A lane may have all of the k best ones.
uint64_t PagesOfList(const CardShape& shape) {
  return uint64_t{shape.bank_words} * std::min(shape.queries, 4U) / kWordsOfPage;
}

// Pages of an index whose scans by the largest terms are served then. Lists hold all pages of a lane, so that
// every k and k1 is served; or max_k of them, so that k is. A bank has the largest scores of all pages.
uint64_t PagesOfLongScans(const CardShape& shape, uint32_t max_group, uint32_t max_k) {
  const uint64_t of_lane = uint64_t{shape.bank_words / PassesOf(shape, max_group)} * kPagesOfWord;
  return (max_k <= PagesOfList(shape) ? of_lane : std::min(of_lane, PagesOfList(shape))) *
         shape.channels.size();
}

}  // namespace

absl::StatusOr<std::unique_ptr<CardDriver>> CardDriver::Create(const MemoryDeviceOptions& options,
                                                               CardDriverOptions card) {
  if (options.max_group < 1 || options.max_k < 1 || options.max_queries < 1 || options.max_heads < 1) {
    return InvalidArgument("max_group {}, max_k {}, max_queries {}, max_heads {}: each must be at least 1",
                           options.max_group, options.max_k, options.max_queries, options.max_heads);
  }
  const double period = kPeriodCycles * 1000.0 / card.clock_mhz;
  if (!(period >= 1 && period <= std::numeric_limits<uint32_t>::max())) {
    return InvalidArgument("clock_mhz: {}; its period must be representable", card.clock_mhz);
  }
  MemoryDeviceOptions offered = options;
  offered.max_group = std::min(offered.max_group, card.max_group);
  offered.max_k = std::min(offered.max_k, card.max_k);
  std::unique_ptr<CardDriver> driver(new CardDriver(offered, std::move(card)));
  MNEMO_RETURN_IF_ERROR(driver->Begin());
  return driver;
}

CardDriver::CardDriver(const MemoryDeviceOptions& options, CardDriverOptions card)
    : options_(options), card_(std::move(card)) {}

CardDriver::~CardDriver() {
  Drop();
  memory_.Stop();
  if (port_ == nullptr) return;
  direct_.Drop(port_.get(), &memory_);
  (void)ResetCard(port_.get(), card_.patience);
}

HostNeeds CardDriver::Needs() const {
  return {
      .operations = options_.max_operations,
      .payload_block = layout::QueryBlockBytes(caps_.max_group, layout::kCardMaxDim),
      .result_block = std::max(
          layout::ResultBlockBytes(layout::kSelectTopK, layout::kFlagRanks, caps_.max_k, layout::kCardMaxDim),
          layout::ResultBlockBytes(layout::kSelectWeightedSum, 0, 0, layout::kCardMaxDim)),
      .direct_bytes = card_.direct_bytes};
}

layout::AttachHello CardDriver::GrantedToQueue() const {
  layout::AttachHello granted = caps_;
  granted.ops = Bit(layout::kOpScoreSelect);
  granted.select_ops =
      static_cast<uint8_t>(caps_.select_ops & ~Bit(layout::kSelectLatest));  // the driver's own
  return granted;
}

void CardDriver::FillCaps() {
  using namespace layout;  // NOLINT(google-build-using-namespace)
  caps_ = NewHello();
  caps_.ops = Bit(kOpCreate) | Bit(kOpAppend) | Bit(kOpFork) | Bit(kOpTruncate) | Bit(kOpFree) |
              Bit(kOpKvStore) | Bit(kOpScoreSelect) | Bit(kOpGather) | Bit(kOpScoreGather);
  constexpr uint32_t kValues =
      Bit(kFormatF16) | Bit(kFormatBf16) | Bit(kFormatF32) | Bit(kFormatScaledKeys) | Bit(kFormatScaledBytes);
  for (uint32_t format = kFormatCodes2; format <= kFormatMeans; ++format) {
    caps_.formats |= shape_.formats & Bit(format);
  }
  caps_.formats |= kValues;
  caps_.score_ops = static_cast<uint8_t>(shape_.score_ops);
  caps_.group_ops = static_cast<uint8_t>(shape_.score_ops >> 8);
  caps_.select_ops = static_cast<uint8_t>(
      (shape_.score_ops >> 16 & (Bit(kSelectTopK) | Bit(kSelectThreshold) | Bit(kSelectWeightedSum))) |
      Bit(kSelectLatest));
  caps_.cascade = shape_.score_ops >> 24 & 1;
  for (uint32_t dim = kMinDim, n = 4; dim <= kCardMaxDim; dim *= 2, ++n) {
    caps_.dims = static_cast<uint16_t>(caps_.dims | (shape_.dims & Bit(n)));
  }
  caps_.max_group = static_cast<uint16_t>(
      std::min({options_.max_group, shape_.max_group, static_cast<uint32_t>(kMaxGroup)}));
  caps_.max_k = std::min(options_.max_k, shape_.max_k);
  uint64_t pages = PagesThatFit(shape_, caps_.max_group);
  if (ServesLongScans(shape_, caps_.max_group)) {
    pages = std::max(pages, PagesOfLongScans(shape_, caps_.max_group, caps_.max_k));
  }
  caps_.max_tokens = static_cast<uint32_t>(std::min<uint64_t>(options_.max_tokens, pages * kPageTokens));
  // k1 has no bound, so that all pages may be listed.
  if (caps_.max_tokens > PagesOfList(shape_) * shape_.channels.size() * kPageTokens) caps_.cascade = 0;
  caps_.max_queries = static_cast<uint16_t>(std::min(options_.max_queries, 255U));
  caps_.max_heads = static_cast<uint16_t>(std::min(options_.max_heads, 255U));
}

absl::Status CardDriver::Begin() {
  memory_.Stop();
  direct_.Drop(nullptr, &memory_);
  port_.reset();
  MNEMO_ASSIGN_OR_RETURN(port_, card_.make_port());
  MNEMO_ASSIGN_OR_RETURN(CardShape shape, ReadShape(port_.get()));
  const bool first = caps_.magic == 0;
  const std::vector<ChannelRange> channels = std::exchange(shape.channels, {});
  CardShape before = shape_;
  before.channels.clear();
  if (!first && (shape != before || channels.size() != shape_.channels.size())) {
    return FailedPrecondition(
        "the card that came back has another shape: {} channels, {} bank words; it had {} and {}; start the "
        "service anew, or put the image of before back",
        channels.size(), shape.bank_words, shape_.channels.size(), before.bank_words);
  }
  shape_ = std::move(shape);
  shape_.channels = channels;
  if (first) {
    FillCaps();
    has_power_ = port_->watts().has_value();
  }
  if (caps_.max_group < 1 || caps_.max_k < 1 || caps_.max_tokens < kPageTokens) {
    caps_ = {};
    return FailedPrecondition(
        "the card's score banks of {} words in {} channels, group of {} in passes of {} and k of {} serve no "
        "page of tokens; max_group {} and max_tokens {} were asked for",
        shape_.bank_words, shape_.channels.size(), shape_.max_group, shape_.queries, shape_.max_k,
        options_.max_group, options_.max_tokens);
  }
  MNEMO_ASSIGN_OR_RETURN(parts_, PartHostMemory(port_->host_memory().size(), Needs()));
  MNEMO_RETURN_IF_ERROR(Restart());
  memory_.Start(port_.get(), shape_.channels, parts_);
  direct_.Start(*port_, parts_);
  return absl::OkStatus();
}

absl::Status CardDriver::Restart() {
  direct_.Drop(port_.get(), &memory_);
  MNEMO_RETURN_IF_ERROR(ResetCard(port_.get(), card_.patience));
  payloads_ = FifoSpace(parts_.payload_bytes);
  results_ = FifoSpace(parts_.result_bytes);
  queue_.Open(port_.get(), parts_, kEpoch, card_.first_index);
  CardSetup setup;
  setup.queue = SetupOf(parts_, port_->host_address());
  setup.queue.granted = GrantedToQueue();
  setup.queue.granted.epoch = kEpoch;
  setup.queue.index = card_.first_index;
  setup.period = static_cast<uint32_t>(std::lround(kPeriodCycles * 1000.0 / card_.clock_mhz));
  setup.watchdog = card_.watchdog_cycles;
  asked_.reset();
  MNEMO_RETURN_IF_ERROR(ProgramCard(port_.get(), shape_, setup));
  if (port_->interrupts()) MNEMO_RETURN_IF_ERROR(EnableInterrupts(port_.get()));
  failed_ = gave_up_ = false;
  silent_polls_ = 0;
  return absl::OkStatus();
}

void CardDriver::Drop() {
  taken_.clear();
  under_way_.clear();
}

size_t CardDriver::Submit(std::span<const Operation> operations) {
  if (!memory_.status().ok()) Fail(memory_.status());
  if (failed_) {
    if (gave_up_ || port_ == nullptr || !memory_.status().ok()) return 0;
    FinishOldest();
    if (const absl::Status status = Restart(); !status.ok()) {
      failure_ = status;
      gave_up_ = true;
      return 0;
    }
  }
  size_t count = 0;
  while (count < operations.size() && taken_.size() < options_.max_operations &&
         (taken_.empty() || taken_.back().pushed == taken_.back().blocks)) {
    Take(operations[count++]);
    Push();
  }
  if (const absl::Status status = queue_.Ring(); !status.ok()) Fail(status);
  return count;
}

size_t CardDriver::Poll(std::span<Completion> completions) {
  if (port_ != nullptr && !failed_ && !under_way_.empty()) {
    port_->Advance();
    bool interrupted = false;
    if (asked_.has_value()) {
      const absl::StatusOr<bool> came = port_->WaitInterrupt({});
      interrupted = came.ok() && *came;
      if (interrupted) asked_.reset();
      if (!came.ok()) Fail(came.status());
    }
    // An interrupt without a completion tells of a failure.
    if (!failed_ && !Collect()) CheckState(interrupted);
  }
  size_t count = 0;
  while (count < completions.size() && FinishOldest()) {
    completions[count++] = taken_.front().answer;
    taken_.pop_front();
  }
  return count;
}

absl::Status CardDriver::Quiesce() {
  Patience patience(card_.patience);
  while (!under_way_.empty() && !failed_) {
    port_->Advance();
    if (Collect()) {
      patience.Renew();
      continue;
    }
    CheckState();
    if (patience.Over()) {
      return absl::DeadlineExceededError(
          fmt::format("the card has finished nothing for {} ms, {} operations "
                      "are under way",
                      card_.patience.count(), under_way_.size()));
    }
    if (!failed_) Wait(patience.since(), std::min(card_.patience, kLongestWait));
  }
  for (Taken& taken : taken_) {
    if (!taken.ready && !taken.on_card) RunInSoftware(&taken);
  }
  if (failed_) return absl::OkStatus();
  // Nothing is left to do; the card says when its last transaction has ended.
  const absl::Status settled = SettleCard(port_.get(), card_.patience);
  if (settled.code() != absl::StatusCode::kInternal) return settled;
  Fail(settled);
  return absl::OkStatus();
}

int CardDriver::event_fd() {
  if (port_ == nullptr || failed_ || under_way_.empty()) return -1;
  const int fd = port_->interrupt_fd();
  if (fd < 0) return -1;
  if (const absl::Status status = AskInterrupt(); !status.ok()) {
    Fail(status);
    return -1;
  }
  return fd;
}

absl::Status CardDriver::AskInterrupt() {
  if (asked_ == queue_.taken()) return absl::OkStatus();
  MNEMO_RETURN_IF_ERROR(port_->WriteRegister(layout::kCardRegAwait, queue_.taken()));
  asked_ = queue_.taken();
  return absl::OkStatus();
}

void CardDriver::Wait(steady_clock::time_point since, std::chrono::milliseconds most) {
  if (!port_->interrupts() || steady_clock::now() < since + kSpinTime) {
    std::this_thread::yield();
    return;
  }
  absl::Status status = AskInterrupt();
  if (status.ok()) {
    const absl::StatusOr<bool> came = port_->WaitInterrupt(most);
    status = came.status();
    if (came.ok() && *came) asked_.reset();
  }
  if (!status.ok()) Fail(status);
}

absl::StatusOr<layout::AttachHello> CardDriver::AttachQueue(uint32_t number, const DirectQueue& queue) {
  if (failed_ || port_ == nullptr) return FailedPrecondition("queue {}: the card has failed", number);
  return direct_.Attach(port_.get(), &memory_, number, queue, GrantedToQueue());
}

absl::Status CardDriver::DetachQueue(uint32_t number) {
  if (port_ == nullptr) return FailedPrecondition("queue {}: the card is lost", number);
  const absl::Status status = direct_.Detach(port_.get(), &memory_, number, card_.patience);
  if (status.code() == absl::StatusCode::kInternal) Fail(status);
  return status;
}

absl::Status CardDriver::RingQueue(uint32_t number, uint32_t head) {
  if (!direct_.attached(number)) return FailedPrecondition("queue {}: not attached", number);
  return port_->WriteRegister(QueueRegister(number, layout::kCardQueueHead), head);
}

absl::StatusOr<bool> CardDriver::QueueStopped(uint32_t number) {
  if (!direct_.attached(number)) return FailedPrecondition("queue {}: not attached", number);
  MNEMO_ASSIGN_OR_RETURN(const uint32_t enable,
                         port_->ReadRegister(QueueRegister(number, layout::kCardQueueEnable)));
  return (enable & layout::kCardQueueStopped) != 0;
}

absl::Status CardDriver::Reset() {
  Drop();
  failed_ = true;
  if (port_ != nullptr && memory_.status().ok()) {
    const absl::Status restarted = Restart();
    if (restarted.ok()) return absl::OkStatus();
    failure_ = restarted;
  }
  // The port has failed, or the card does not come to rest: whatever is made anew is empty.
  const absl::Status begun = Begin();
  if (!begun.ok()) {
    memory_.Stop();
    port_.reset();
    return begun;
  }
  return DataLoss("the card was lost and is there again, without its indexes: {}",
                  std::string(failure_.message()));
}

void CardDriver::Fail(const absl::Status& why) {
  if (failed_) return;
  failed_ = true;
  failure_ = why;
  under_way_.clear();
  for (Taken& taken : taken_) {
    if (taken.ready || !taken.on_card) continue;
    taken.answer = AnswerOf(taken.operation.descriptor, layout::kStatusDeviceFailed, layout::kNoDetail);
    taken.ready = true;
    taken.pushed = taken.blocks;
  }
}

void CardDriver::CheckState(bool now) {
  if (++silent_polls_ % kSilentPolls != 0 && !now) return;
  if (const absl::Status status = CheckFailure(port_.get()); !status.ok()) Fail(status);
}

std::vector<memory_device::DeviceCounter> CardDriver::Counters() {
  if (port_ == nullptr) return {};
  bool good = true;
  const auto read = [&](uint32_t offset) -> uint64_t {
    if (!good) return 0;
    const absl::StatusOr<uint64_t> value = ReadPair(port_.get(), offset);
    good = value.ok();
    return good ? *value : 0;
  };
  CardCounts counts{};
  for (uint32_t n = 0; n < counts.size(); ++n) counts[n] = read(layout::kCardRegCounters + 8 * n);
  std::vector<LaneCounts> lanes(shape_.channels.size());
  for (uint32_t lane = 0; lane < lanes.size(); ++lane) {
    for (uint32_t n = 0; n < lanes[lane].size(); ++n) {
      lanes[lane][n] = read(layout::kCardRegLanes + lane * layout::kCardLaneBytes + 8 * n);
    }
  }
  if (!good) return {};
  std::vector<memory_device::DeviceCounter> counters = DeviceCounters(counts, lanes);
  uint64_t used = 0;
  for (uint32_t channel = 0; channel < lanes.size(); ++channel) used += memory_.used_beats(channel);
  for (const auto& [state, bytes] : {std::pair("used", used * layout::kCardBeatBytes),
                                     std::pair("total", memory_.record_capacity_bytes())}) {
    counters.push_back({.name = "device_record_bytes",
                        .label = "state",
                        .label_value = state,
                        .value = static_cast<double>(bytes)});
  }
  return counters;
}

}  // namespace mnemo::card
