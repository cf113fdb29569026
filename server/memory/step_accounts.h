// Accounts of memory processing: the cost of each step for a sequence and for all sequences of a worker. They
// also count how often a sequence runs in the worker instead of in the service.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/memory/memory_client.h"
#include "server/memory/methods/method.h"
#include "server/memory/shape.h"
#include "server/memory/step_stats.h"

namespace mnemo::memory {

// Location of an index.
enum Side { kInWorker = 0, kInService = 1, kSides = 2 };

inline constexpr int kStepKinds = 4;

struct SequenceAccount {
  const methods::Method* method = nullptr;
  // The members step, method and device are not set.
  std::array<std::array<MemoryStepStat, kStepKinds>, kSides> costs{};
  int fallbacks = 0;
  std::string fallback_reason;  // reason of the last fallback
};

// Figures of one decode row, for each indexed layer and KV head.
struct RowFigures {
  Side side = kInWorker;
  const ClientCost* asked = nullptr;  // cost of the row's own selection; nullptr: it has none, or shares one
  int64_t scored = 0;                 // entries that its selection scored
  int selected = 0;                   // entries selected
  int entry_tokens = 1;
  int64_t attended = 0;  // positions attended to
};

// Names that costs are reported under.
struct SideNames {
  std::string worker;
  std::string service;
};

// Used by the engine thread alone.
class StepAccounts {
 public:
  // `kv_token_bytes`: K and V of one token and head, as the cache stores them.
  StepAccounts(const MemoryShape& shape, uint64_t kv_token_bytes);

  // Charges `pages` that became records or are being made into records.
  void ChargeRecords(SequenceAccount* account, Side side, int pages, const ClientCost& spent);
  // Charges the transfer of K and V of one page to the service.
  void ChargeKept(SequenceAccount* account, uint64_t time_ns, const ClientCost& spent);
  // Charges a row of a step. `apply_ns`: time of the step's attention, whose rows attend to `total_attended`
  // positions.
  void ChargeRow(SequenceAccount* account, const RowFigures& row, uint64_t apply_ns, uint64_t total_attended);
  // K and V of one sequence that a step fetched from the service. `tokens` counts over all layers and heads.
  struct Fetched {
    SequenceAccount* account = nullptr;
    uint64_t tokens = 0;
  };
  // `time_ns`: time that the step spent on all fetches, shared out by tokens.
  void ChargeFetches(std::span<const Fetched> fetches, uint64_t time_ns);
  // Counts a row that selected `entries` whose K and V the service keeps; `missed_tokens` were not in the
  // worker.
  void CountResidentRow(int entries, int entry_tokens, uint64_t missed_tokens);

  // Counts a sequence that runs in the worker instead of in the service. A sequence that is not open has no
  // account (nullptr).
  void CountFallback(SequenceAccount* account, std::string_view reason);
  // Adds the traffic of an attachment that has ended.
  void AddPastAttachment(const AttachmentStats& attachment);

  // Returns the sequence's costs so far.
  static std::vector<MemoryStepStat> StepsOf(const SequenceAccount& account, const SideNames& names);
  // Sets the fields of `stats` that these accounts cover. `attachment`: traffic of the current attachment;
  // nullptr: there is none.
  void FillStats(const SideNames& names, const AttachmentStats* attachment, PipelineStats* stats) const;

 private:
  // Adds `cost` to the sequence's account and to the totals.
  void Charge(SequenceAccount* account, Side side, MemoryStepKind kind, const MemoryStepStat& cost);

  const MemoryShape shape_;
  const uint64_t columns_;  // indexed layers times KV heads
  const uint64_t kv_token_bytes_;
  std::map<std::string, uint64_t> fallbacks_;
  std::map<std::pair<const methods::Method*, int>, std::array<StepTotal, kStepKinds>> totals_;
  TokenHistogram selected_tokens_;
  HotStats hot_;
  AttachmentStats past_attachments_;
};

}  // namespace mnemo::memory
