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

absl::Status ResetCard(CardPort* port, std::chrono::milliseconds allowed) {
  MNEMO_RETURN_IF_ERROR(port->WriteRegister(layout::kCardRegControl, layout::kCardControlReset));
  const steady_clock::time_point until = steady_clock::now() + allowed;
  while (true) {
    MNEMO_ASSIGN_OR_RETURN(const uint32_t control, port->ReadRegister(layout::kCardRegControl));
    if ((control & layout::kCardControlReset) == 0) return absl::OkStatus();
    if (steady_clock::now() >= until) {
      return absl::DeadlineExceededError(
          fmt::format("the card has transactions open {} ms after a reset", allowed.count()));
    }
    port->Advance();
    std::this_thread::yield();
  }
}

absl::Status ProgramCard(CardPort* port, const CardShape& shape, const QueueSetup& setup) {
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
  const layout::AttachHello& granted = setup.granted;
  const HostParts& parts = setup.parts;
  const uint64_t host = port->host_address();
  const auto of_queue = [](uint32_t offset) { return uint32_t{layout::kCardRegQueues} + offset; };
  to.Write(of_queue(layout::kCardQueueHead), setup.index);
  to.WriteAddress(of_queue(layout::kCardQueueRing), host + parts.ring);
  to.WriteAddress(of_queue(layout::kCardQueueCompletions), host + parts.completions);
  to.Write(of_queue(layout::kCardQueueSlots), parts.slots);
  to.Write(of_queue(layout::kCardQueuePoll), 0);
  to.WriteAddress(of_queue(layout::kCardQueueRegion0), host + parts.payloads);
  to.WriteAddress(of_queue(layout::kCardQueueRegion1), host + parts.results);
  to.Write(of_queue(layout::kCardQueueLength0),
           static_cast<uint32_t>(parts.payload_bytes / layout::kUnitBytes));
  to.Write(of_queue(layout::kCardQueueLength1),
           static_cast<uint32_t>(parts.result_bytes / layout::kUnitBytes));
  to.Write(of_queue(layout::kCardQueueRegions), 2U | uint32_t{granted.epoch} << 16);
  to.Write(of_queue(layout::kCardQueueSeq), setup.index);
  to.WriteAddress(of_queue(layout::kCardQueueTable), host + parts.table);
  to.Write(of_queue(layout::kCardQueueIndexes), parts.indexes);
  to.Write(of_queue(layout::kCardQueueOps), granted.ops);
  to.Write(of_queue(layout::kCardQueueFormats), granted.formats);
  to.Write(of_queue(layout::kCardQueueScoreOps),
           uint32_t{granted.score_ops} | uint32_t{granted.group_ops} << 8 |
               uint32_t{granted.select_ops} << 16 | uint32_t{granted.cascade} << 24);
  to.Write(of_queue(layout::kCardQueueMaxGroup), granted.max_group | uint32_t{granted.max_queries} << 16);
  to.Write(of_queue(layout::kCardQueueMaxK), granted.max_k);
  to.Write(of_queue(layout::kCardQueueEnable), 1);
  to.Write(layout::kCardRegControl, layout::kCardControlRun);
  return to.status();
}

}  // namespace mnemo::card
