#include "server/memory/step_accounts.h"

#include "proto/layout/record.h"

namespace mnemo::memory {
namespace {

size_t Index(MemoryStepKind kind) { return static_cast<size_t>(kind) - 1; }

AttachmentStats Sum(AttachmentStats a, const AttachmentStats& b) {
  for (size_t i = 0; i < a.round_trips.buckets.size(); ++i)
    a.round_trips.buckets[i] += b.round_trips.buckets[i];
  a.round_trips.count += b.round_trips.count;
  a.round_trips.sum += b.round_trips.sum;
  a.bytes_sent += b.bytes_sent;
  a.bytes_received += b.bytes_received;
  return a;
}

const std::string& NameOf(const SideNames& names, int side) {
  return side == kInWorker ? names.worker : names.service;
}

}  // namespace

StepAccounts::StepAccounts(const MemoryShape& shape, uint64_t kv_token_bytes)
    : shape_(shape),
      columns_(static_cast<uint64_t>(shape.layers) * static_cast<uint64_t>(shape.kv_heads)),
      kv_token_bytes_(kv_token_bytes) {}

void StepAccounts::Charge(SequenceAccount* account, Side side, MemoryStepKind kind,
                          const MemoryStepStat& cost) {
  account->costs[side][Index(kind)].Add(cost);
  StepTotal& total = totals_[{account->method, side}][Index(kind)];
  total.Add(cost);
  total.times.Observe(cost.time_ns);
}

void StepAccounts::ChargeRecords(SequenceAccount* account, Side side, int pages, const ClientCost& spent) {
  if (pages == 0 && spent.prepare_ns == 0) return;
  Charge(account, side, MemoryStepKind::kPrepare,
         {.time_ns = spent.prepare_ns,
          .bytes = spent.bytes,
          .count = static_cast<uint64_t>(pages) * layout::kPageTokens * columns_});
}

void StepAccounts::ChargeKept(SequenceAccount* account, uint64_t time_ns, const ClientCost& spent) {
  Charge(account, kInService, MemoryStepKind::kPrepare, {.time_ns = time_ns, .bytes = spent.bytes});
}

void StepAccounts::ChargeRow(SequenceAccount* account, const RowFigures& row, uint64_t apply_ns,
                             uint64_t total_attended) {
  if (row.selected > 0)
    selected_tokens_.Observe(static_cast<uint64_t>(row.selected) * static_cast<uint64_t>(row.entry_tokens));
  if (row.asked != nullptr) {
    const auto selected = static_cast<uint64_t>(row.selected) * columns_;
    Charge(account, row.side, MemoryStepKind::kRelevancy,
           {.time_ns = row.asked->score_ns,
            .bytes = row.asked->bytes,
            .count = static_cast<uint64_t>(row.scored) * columns_,
            .round_trips = row.side == kInService ? static_cast<uint64_t>(shape_.layers) : 0});
    Charge(account, row.side, MemoryStepKind::kRetrieval,
           {.time_ns = row.asked->select_ns, .bytes = selected * sizeof(uint32_t), .count = selected});
  }
  // The row itself is part of the total.
  const uint64_t attended = static_cast<uint64_t>(row.attended) * columns_;
  Charge(account, kInWorker, MemoryStepKind::kApply,
         {.time_ns = apply_ns * static_cast<uint64_t>(row.attended) / total_attended,
          .bytes = attended * kv_token_bytes_,
          .count = attended});
}

void StepAccounts::ChargeFetches(std::span<const Fetched> fetches, uint64_t time_ns) {
  uint64_t all = 0;
  for (const Fetched& fetched : fetches) all += fetched.tokens;
  if (all == 0) return;
  for (const Fetched& fetched : fetches) {
    Charge(fetched.account, kInService, MemoryStepKind::kRetrieval,
           {.time_ns = static_cast<uint64_t>(static_cast<double>(time_ns) *
                                             static_cast<double>(fetched.tokens) / static_cast<double>(all)),
            .bytes = fetched.tokens * kv_token_bytes_});
  }
}

void StepAccounts::CountResidentRow(int entries, int entry_tokens, uint64_t missed_tokens) {
  hot_.missed_tokens += missed_tokens;
  hot_.selected_tokens += static_cast<uint64_t>(entries) * static_cast<uint64_t>(entry_tokens) * columns_;
}

void StepAccounts::CountFallback(SequenceAccount* account, std::string_view reason) {
  ++fallbacks_[std::string(reason)];
  if (account == nullptr) return;
  ++account->fallbacks;
  account->fallback_reason = reason;
}

void StepAccounts::AddPastAttachment(const AttachmentStats& attachment) {
  past_attachments_ = Sum(past_attachments_, attachment);
}

std::vector<MemoryStepStat> StepAccounts::StepsOf(const SequenceAccount& account, const SideNames& names) {
  std::vector<MemoryStepStat> steps;
  for (size_t kind = 0; kind < kStepKinds; ++kind) {
    for (int side = 0; side < kSides; ++side) {
      if (account.costs[static_cast<size_t>(side)][kind].count == 0) continue;
      MemoryStepStat& stat = steps.emplace_back(account.costs[static_cast<size_t>(side)][kind]);
      stat.step = static_cast<MemoryStepKind>(kind + 1);
      stat.method = std::string(account.method->name);
      stat.device = NameOf(names, side);
    }
  }
  return steps;
}

void StepAccounts::FillStats(const SideNames& names, const AttachmentStats* attachment,
                             PipelineStats* stats) const {
  stats->fallbacks = fallbacks_;
  const AttachmentStats traffic =
      attachment == nullptr ? past_attachments_ : Sum(past_attachments_, *attachment);
  stats->round_trips = traffic.round_trips;
  stats->bytes_to_service = traffic.bytes_sent;
  stats->bytes_from_service = traffic.bytes_received;
  stats->selected_tokens = selected_tokens_;
  stats->hot = hot_;
  for (const auto& [key, kinds] : totals_) {
    for (size_t kind = 0; kind < kStepKinds; ++kind) {
      if (kinds[kind].count == 0) continue;
      StepTotal& total = stats->steps.emplace_back(kinds[kind]);
      total.step = static_cast<MemoryStepKind>(kind + 1);
      total.method = std::string(key.first->name);
      total.device = NameOf(names, key.second);
    }
  }
}

}  // namespace mnemo::memory
