// Accounts of memory processing: what each step costs a sequence and all sequences of a worker, and how often
// a sequence runs in the worker instead of in the service.
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

// Where an index is.
enum Side { kInWorker = 0, kInService = 1, kSides = 2 };

inline constexpr int kStepKinds = 4;

struct SequenceAccount {
  const methods::Method* method = nullptr;
  // Without step, method and device.
  std::array<std::array<MemoryStepStat, kStepKinds>, kSides> costs{};
  int fallbacks = 0;
  std::string fallback_reason;  // of the last one
};

// Figures of one decode row, for each indexed layer and KV head.
struct RowFigures {
  Side side = kInWorker;
  const ClientCost* asked = nullptr;  // what its own selection cost; nullptr: it had none, or shared one
  int64_t scored = 0;                 // entries that its selection looked at
  int selected = 0;                   // entries
  int entry_tokens = 1;
  int64_t attended = 0;  // positions
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

  // Pages became records, or are on their way.
  void ChargeRecords(SequenceAccount* account, Side side, int pages, const ClientCost& spent);
  // K and V of a page went to the service.
  void ChargeKept(SequenceAccount* account, uint64_t time_ns, const ClientCost& spent);
  // A row of a step. `apply_ns`: attention of the step, whose rows attend to `total_attended` positions.
  void ChargeRow(SequenceAccount* account, const RowFigures& row, uint64_t apply_ns, uint64_t total_attended);
  // K and V that a step fetched from the service, in `time_ns` for all sequences: tokens over all layers and
  // heads.
  struct Fetched {
    SequenceAccount* account = nullptr;
    uint64_t tokens = 0;
  };
  void ChargeFetches(std::span<const Fetched> fetches, uint64_t time_ns);
  // A row that selected `entries` whose K and V the service keeps, `missed_tokens` of them not in the worker.
  void CountResidentRow(int entries, int entry_tokens, uint64_t missed_tokens);

  // A sequence runs in the worker instead of in the service; without an account, one that is not open.
  void CountFallback(SequenceAccount* account, std::string_view reason);
  // Adds the traffic of an attachment that has ended.
  void AddPastAttachment(const AttachmentStats& link);

  // The sequence's costs so far.
  static std::vector<MemoryStepStat> StepsOf(const SequenceAccount& account, const SideNames& names);
  // Fills what this accounts for. `link`: the present one, nullptr: there is none.
  void FillStats(const SideNames& names, const AttachmentStats* link, PipelineStats* stats) const;

 private:
  // To the sequence and to the totals.
  void Charge(SequenceAccount* account, Side side, MemoryStepKind kind, const MemoryStepStat& cost);

  const MemoryShape shape_;
  const uint64_t columns_;  // indexed layers and KV heads
  const uint64_t kv_token_bytes_;
  std::map<std::string, uint64_t> fallbacks_;
  std::map<std::pair<const methods::Method*, int>, std::array<StepTotal, kStepKinds>> totals_;
  TokenHistogram selected_tokens_;
  HotStats hot_;
  AttachmentStats past_links_;
};

}  // namespace mnemo::memory
