#include "fpga/card/card_registers.h"

#include <bit>
#include <thread>

#include "proto/layout/card.h"
#include "proto/layout/card_hash.h"
#include "proto/layout/layout_hash.h"

namespace mnemo::card {
namespace {

using std::chrono::steady_clock;

absl::Status CheckRegister(CardPort* port, const char* name, uint32_t offset, uint32_t wanted) {
  MNEMO_ASSIGN_OR_RETURN(const uint32_t value, port->ReadRegister(offset));
  if (value == wanted) return absl::OkStatus();
  return FailedPrecondition("{} of the card: {:#x}, this program's is {:#x}", name, value, wanted);
}

absl::Status CheckPair(CardPort* port, const char* name, uint32_t offset, uint64_t wanted) {
  MNEMO_ASSIGN_OR_RETURN(const uint64_t value, ReadPair(port, offset));
  if (value == wanted) return absl::OkStatus();
  return FailedPrecondition("{} of the card: {:#x}, this program's is {:#x}", name, value, wanted);
}

absl::Status ReadChannels(CardPort* port, uint32_t count, std::vector<ChannelRange>* channels) {
  if (!std::has_single_bit(count) || count > layout::kCardMaxChannels) {
    return FailedPrecondition("channels of the card: {}; this program knows powers of two up to {}", count,
                              uint32_t{layout::kCardMaxChannels});
  }
  for (uint32_t n = 0; n < count; ++n) {
    const uint32_t at = layout::kCardRegChannels + 8 * n;
    MNEMO_ASSIGN_OR_RETURN(const uint32_t base, port->ReadRegister(at));
    MNEMO_ASSIGN_OR_RETURN(const uint32_t length, port->ReadRegister(at + 4));
    if (length == 0) return FailedPrecondition("channel {} of the card: 0 beats, at least 1 is needed", n);
    channels->push_back({base, length});
  }
  return absl::OkStatus();
}

// Writes registers until one write fails.
class Writer {
 public:
  explicit Writer(CardPort* port) : port_(port) {}
  void Write(uint32_t offset, uint32_t value) {
    if (status_.ok()) status_ = port_->WriteRegister(offset, value);
  }
  void WriteAddress(uint32_t offset, uint64_t value) {
    if (status_.ok()) status_ = WritePair(port_, offset, value);
  }
  const absl::Status& status() const { return status_; }

 private:
  CardPort* const port_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<uint64_t> ReadPair(CardPort* port, uint32_t offset) {
  MNEMO_ASSIGN_OR_RETURN(const uint32_t low, port->ReadRegister(offset));
  MNEMO_ASSIGN_OR_RETURN(const uint32_t high, port->ReadRegister(offset + 4));
  return uint64_t{high} << 32 | low;
}

absl::Status WritePair(CardPort* port, uint32_t offset, uint64_t value) {
  MNEMO_RETURN_IF_ERROR(port->WriteRegister(offset, static_cast<uint32_t>(value)));
  return port->WriteRegister(offset + 4, static_cast<uint32_t>(value >> 32));
}

absl::StatusOr<CardShape> ReadShape(CardPort* port) {
  MNEMO_RETURN_IF_ERROR(CheckRegister(port, "magic", layout::kCardRegMagic, layout::kCardMagic));
  MNEMO_RETURN_IF_ERROR(
      CheckRegister(port, "version", layout::kCardRegVersion, layout::kCardMajor << 16 | layout::kCardMinor));
  MNEMO_RETURN_IF_ERROR(CheckPair(port, "card hash", layout::kCardRegCardHash, layout::kCardHash));
  MNEMO_RETURN_IF_ERROR(CheckPair(port, "layout hash", layout::kCardRegLayoutHash, layout::kLayoutHash));
  CardShape shape;
  MNEMO_ASSIGN_OR_RETURN(const uint32_t form, port->ReadRegister(layout::kCardRegShape));
  shape.queries = form >> 8 & 0xFF;
  shape.scores = form >> 16;
  if (shape.queries == 0 || shape.scores == 0) {
    return FailedPrecondition(
        "shape of the card: {} queries of a pass, {} scores a cycle; both are at least 1", shape.queries,
        shape.scores);
  }
  MNEMO_RETURN_IF_ERROR(ReadChannels(port, form & 0xFF, &shape.channels));
  MNEMO_ASSIGN_OR_RETURN(shape.bank_words, port->ReadRegister(layout::kCardRegBankWords));
  MNEMO_ASSIGN_OR_RETURN(shape.score_ops, port->ReadRegister(layout::kCardRegScoreOps));
  MNEMO_ASSIGN_OR_RETURN(shape.formats, port->ReadRegister(layout::kCardRegFormats));
  MNEMO_ASSIGN_OR_RETURN(shape.dims, port->ReadRegister(layout::kCardRegDims));
  MNEMO_ASSIGN_OR_RETURN(const uint32_t largest, port->ReadRegister(layout::kCardRegMaxGroup));
  shape.max_group = largest & 0xFFFF;
  shape.max_k = largest >> 16;
  return shape;
}

bool Patience::Over() {
  ++looks_;
  return looks_ >= kLeastLooks && steady_clock::now() >= since_ + allowed_;
}

void Patience::Renew() {
  since_ = steady_clock::now();
  looks_ = 0;
}

absl::Status ResetCard(CardPort* port, std::chrono::milliseconds allowed) {
  MNEMO_RETURN_IF_ERROR(port->WriteRegister(layout::kCardRegControl, layout::kCardControlReset));
  Patience patience(allowed);
  while (true) {
    MNEMO_ASSIGN_OR_RETURN(const uint32_t control, port->ReadRegister(layout::kCardRegControl));
    if ((control & layout::kCardControlReset) == 0) return absl::OkStatus();
    if (patience.Over()) {
      return absl::DeadlineExceededError(
          fmt::format("the card has transactions open {} ms after a reset", allowed.count()));
    }
    port->Advance();
    std::this_thread::yield();
  }
}

QueueSetup SetupOf(const HostParts& parts, uint64_t host_address) {
  QueueSetup setup;
  setup.ring = host_address + parts.ring;
  setup.completions = host_address + parts.completions;
  setup.slots = parts.slots;
  setup.regions = {{host_address + parts.payloads, parts.payload_bytes},
                   {host_address + parts.results, parts.result_bytes}};
  setup.table = host_address + parts.table;
  setup.indexes = parts.indexes;
  return setup;
}

absl::Status ProgramQueue(CardPort* port, uint32_t number, const QueueSetup& setup) {
  Writer to(port);
  const layout::AttachHello& granted = setup.granted;
  const auto of_queue = [number](uint32_t offset) { return QueueRegister(number, offset); };
  const auto units = [](uint64_t bytes) { return static_cast<uint32_t>(bytes / layout::kUnitBytes); };
  const CardSpace second = setup.regions.size() > 1 ? setup.regions[1] : CardSpace{};
  to.Write(of_queue(layout::kCardQueueHead), setup.index);
  to.WriteAddress(of_queue(layout::kCardQueueRing), setup.ring);
  to.WriteAddress(of_queue(layout::kCardQueueCompletions), setup.completions);
  to.Write(of_queue(layout::kCardQueueSlots), setup.slots);
  to.Write(of_queue(layout::kCardQueuePoll), setup.poll ? 1 : 0);
  to.WriteAddress(of_queue(layout::kCardQueueRegion0), setup.regions[0].address);
  to.WriteAddress(of_queue(layout::kCardQueueRegion1), second.address);
  to.Write(of_queue(layout::kCardQueueLength0), units(setup.regions[0].bytes));
  to.Write(of_queue(layout::kCardQueueLength1), units(second.bytes));
  to.Write(of_queue(layout::kCardQueueRegions),
           static_cast<uint32_t>(setup.regions.size()) | uint32_t{granted.epoch} << 16);
  to.Write(of_queue(layout::kCardQueueSeq), setup.index);
  to.WriteAddress(of_queue(layout::kCardQueueTable), setup.table);
  to.Write(of_queue(layout::kCardQueueIndexes), setup.indexes);
  to.Write(of_queue(layout::kCardQueueOps), granted.ops);
  to.Write(of_queue(layout::kCardQueueFormats), granted.formats);
  to.Write(of_queue(layout::kCardQueueScoreOps),
           uint32_t{granted.score_ops} | uint32_t{granted.group_ops} << 8 |
               uint32_t{granted.select_ops} << 16 | uint32_t{granted.cascade} << 24);
  to.Write(of_queue(layout::kCardQueueMaxGroup), granted.max_group | uint32_t{granted.max_queries} << 16);
  to.Write(of_queue(layout::kCardQueueMaxK), granted.max_k);
  to.Write(of_queue(layout::kCardQueueEnable), layout::kCardQueueEnabled);
  return to.status();
}

absl::Status ProgramCard(CardPort* port, const CardShape& shape, const CardSetup& setup) {
  Writer to(port);
  for (uint32_t n = 0; n < shape.channels.size(); ++n) {
    const uint32_t at = layout::kCardRegChannels + 8 * n;
    to.Write(at, static_cast<uint32_t>(shape.channels[n].base));
    to.Write(at + 4, static_cast<uint32_t>(shape.channels[n].length));
  }
  for (uint32_t queue = 0; queue < layout::kCardQueues; ++queue) {
    to.Write(layout::kCardRegQueues + queue * layout::kCardQueueBytes + layout::kCardQueueEnable, 0);
  }
  to.Write(layout::kCardRegWatchdog, setup.watchdog);
  to.Write(layout::kCardRegPeriod, setup.period);
  MNEMO_RETURN_IF_ERROR(to.status());
  MNEMO_RETURN_IF_ERROR(ProgramQueue(port, 0, setup.queue));
  return port->WriteRegister(layout::kCardRegControl, layout::kCardControlRun);
}

absl::Status EnableInterrupts(CardPort* port) {
  MNEMO_RETURN_IF_ERROR(port->WriteRegister(
      layout::kCardRegInterruptEnable, layout::kCardInterruptCompletion | layout::kCardInterruptFailure));
  return port->WriteRegister(layout::kCardRegInterruptGlobal, 1);
}

absl::Status SettleCard(CardPort* port, std::chrono::milliseconds allowed) {
  MNEMO_RETURN_IF_ERROR(
      port->WriteRegister(layout::kCardRegControl, layout::kCardControlRun | layout::kCardControlQuiesce));
  Patience patience(allowed);
  while (true) {
    MNEMO_ASSIGN_OR_RETURN(const uint32_t state, port->ReadRegister(layout::kCardRegState));
    if ((state & layout::kCardStateFailed) != 0) return CheckFailure(port);
    if ((state & layout::kCardStateQuiesced) != 0) break;
    if (patience.Over()) {
      return absl::DeadlineExceededError(
          fmt::format("the card is busy {} ms after a quiesce, state {}", allowed.count(), state));
    }
    port->Advance();
    std::this_thread::yield();
  }
  return port->WriteRegister(layout::kCardRegControl, layout::kCardControlRun);
}

absl::Status CheckFailure(CardPort* port) {
  MNEMO_ASSIGN_OR_RETURN(const uint32_t state, port->ReadRegister(layout::kCardRegState));
  if ((state & layout::kCardStateFailed) == 0) return absl::OkStatus();
  MNEMO_ASSIGN_OR_RETURN(const uint32_t failure, port->ReadRegister(layout::kCardRegFailure));
  return Internal("the card failed: {} (CardFailure), channel {}", failure & 0xFF, failure >> 8 & 0xFF);
}

}  // namespace mnemo::card
