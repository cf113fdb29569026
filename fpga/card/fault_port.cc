#include "fpga/card/fault_port.h"

#include <cstring>

#include "fpga/card/card_queue.h"
#include "fpga/card/card_registers.h"
#include "proto/layout/card.h"
#include "proto/layout/completion.h"
#include "proto/layout/descriptor.h"
#include "proto/layout/payload.h"
#include "proto/layout/ring.h"

namespace mnemo::card {

using layout::Completion;
using layout::Descriptor;
using layout::RingHeader;

absl::Status FaultPort::Call() {
  const uint64_t call = calls_++;
  const bool fails =
      fault_ == PortFault::kGone ? call >= place_ : fault_ == PortFault::kOneFails && call == place_;
  if (!fails) return absl::OkStatus();
  happened_ = true;
  return absl::UnavailableError("the port of the test fails");
}

absl::StatusOr<uint32_t> FaultPort::ReadRegister(uint32_t offset) {
  MNEMO_RETURN_IF_ERROR(Call());
  MNEMO_ASSIGN_OR_RETURN(const uint32_t value, inner_->ReadRegister(offset));
  if (resetting_ && offset == layout::kCardRegControl) return value | layout::kCardControlReset;
  if (fault_ != PortFault::kRegister || reads_++ != place_) return value;
  happened_ = true;
  return ~value;
}

absl::Status FaultPort::WriteRegister(uint32_t offset, uint32_t value) {
  MNEMO_RETURN_IF_ERROR(Call());
  if (offset == layout::kCardRegControl && (value & layout::kCardControlReset) != 0) {
    resetting_ = fault_ == PortFault::kNeverResets && happened_;
    if (fault_ == PortFault::kStops) stopped_ = false;
  }
  return inner_->WriteRegister(offset, value);
}

absl::Status FaultPort::Write(uint64_t address, std::span<const uint8_t> bytes) {
  MNEMO_RETURN_IF_ERROR(Call());
  return inner_->Write(address, bytes);
}

absl::Status FaultPort::Read(uint64_t address, std::span<uint8_t> bytes) {
  MNEMO_RETURN_IF_ERROR(Call());
  return inner_->Read(address, bytes);
}

uint8_t* FaultPort::Queue(uint32_t offset) {
  const uint64_t address = ReadPair(inner_.get(), uint32_t{layout::kCardRegQueues} + offset).value();
  return address == 0 ? nullptr : inner_->host_memory().data() + (address - inner_->host_address());
}

void FaultPort::Advance() {
  if (late_ > 0) --late_;
  if (stopped_ || late_ > 0) return;
  auto* const header = reinterpret_cast<RingHeader*>(Queue(layout::kCardQueueCompletions));
  if (header == nullptr) return inner_->Advance();  // after a reset
  // The driver takes a completion once its slot has it, so the head may come too late.
  const uint32_t before = header->tail;
  uint8_t* const completion =
      reinterpret_cast<uint8_t*>(header + 1) + (before & (header->slots - 1)) * sizeof(Completion);
  const bool known = CompletionIn(completion, before).has_value();
  inner_->Advance();
  if (known || !CompletionIn(completion, before).has_value() || turns_++ != place_) return;
  switch (fault_) {
    case PortFault::kStops:
    case PortFault::kNeverResets:
      happened_ = stopped_ = true;
      break;
    case PortFault::kLate:
      happened_ = true;
      late_ = 20;
      break;
    case PortFault::kCompletions:
      happened_ = true;
      header->head += header->slots + 1 + static_cast<uint32_t>(random_() % 1000);
      break;
    default:
      Spoil(completion);
  }
}

absl::StatusOr<bool> FaultPort::WaitInterrupt(std::chrono::milliseconds most) {
  MNEMO_RETURN_IF_ERROR(Call());
  if (most.count() > 0) Advance();
  MNEMO_ASSIGN_OR_RETURN(const bool came, inner_->WaitInterrupt({}));
  if (fault_ != PortFault::kNoInterrupt || waits_++ < place_) return came;
  happened_ = true;
  return false;
}

void FaultPort::Spoil(uint8_t* at) {
  Completion completion;
  std::memcpy(&completion, at, sizeof completion);
  happened_ = true;
  switch (fault_) {
    case PortFault::kSeq:
      completion.seq ^= 1U << random_() % 32;
      break;
    case PortFault::kIndex:
      completion.index_id ^= 1U << random_() % 32;
      break;
    case PortFault::kStatus:
      completion.status = static_cast<uint16_t>(1000 + random_() % 1000);
      break;
    case PortFault::kCount:
      completion.count ^= 1U << random_() % 32;
      break;
    case PortFault::kResultHeader:
    case PortFault::kResultIds:
      return SpoilResults(at);
    default:
      happened_ = false;
  }
  std::memcpy(at, &completion, sizeof completion);
}

void FaultPort::SpoilResults(const uint8_t* at) {
  // The descriptor lies in the slot of the same number as its completion.
  const uint64_t slot =
      static_cast<uint64_t>(at - Queue(layout::kCardQueueCompletions) - sizeof(RingHeader)) /
      sizeof(Completion);
  Descriptor d;
  std::memcpy(&d, Queue(layout::kCardQueueRing) + sizeof(RingHeader) + slot * sizeof d, sizeof d);
  uint8_t* const result = Queue(layout::kCardQueueRegion1) + uint64_t{d.result_offset} * layout::kUnitBytes;
  layout::ResultHeader header;
  std::memcpy(&header, result, sizeof header);
  if (fault_ == PortFault::kResultHeader) {
    const uint32_t which = random_() % 3;
    uint32_t& field = which == 0 ? header.count : which == 1 ? header.candidates : header.flags;
    field ^= 1U << random_() % 32;
    std::memcpy(result, &header, sizeof header);
    return;
  }
  happened_ = header.count > 1;
  if (!happened_) return;
  uint8_t* const ids = result + sizeof header;
  const uint32_t wrong = random_() % 2 == 0 ? d.end : 0;  // the second falls, or lies behind the last
  std::memcpy(ids + sizeof wrong, &wrong, sizeof wrong);
}

}  // namespace mnemo::card
