#include "fpga/report/workload.h"

namespace mnemo::card::report {
namespace {

using layout::kFormatBounds;
using layout::kFormatCodes2;
using layout::kFormatCodes4;
using layout::kFormatCodes8;

constexpr uint32_t k1M = 1 << 20;

constexpr Workload kWorkloads[] = {
    {"scan2", Measure::kScan, k1M, 1, 128, 4, 2048, kFormatCodes2, false, 94, "one head, 2 bits"},
    {"scan4", Measure::kScan, k1M, 1, 128, 4, 2048, kFormatCodes4, false, 178, "one head, 4 bits"},
    {"scan8", Measure::kScan, k1M, 1, 128, 4, 2048, kFormatCodes8, false, 345, "one head, 8 bits"},
    {"sign", Measure::kScan, k1M, 1, 128, 4, 2048, kFormatCodes2, true, 50, "one head, sign stage"},
    {"bounds", Measure::kScan, k1M, 1, 128, 4, 2048, kFormatBounds, false, 45, "one head, page bounds"},
    {"dsa8", Measure::kScan, k1M, 1, 128, 64, 2048, kFormatCodes8, false, 4404,
     "weighted ReLU, 64 heads, 8 bits", true},
    {"dsa2", Measure::kScan, k1M, 1, 128, 64, 2048, kFormatCodes2, false, 1102,
     "weighted ReLU, 64 heads, 2 bits", true},
    {"small", Measure::kDescriptor, 8192, 3, 64, 3, 1024, kFormatCodes2, false, 8, "3 heads, 2 bits"},
    {"d8k", Measure::kDescriptor, 8192, 8, 128, 4, 1024, kFormatCodes2, false, 16, "8 heads, 2 bits"},
    {"d64k", Measure::kDescriptor, 65536, 8, 128, 4, 1024, kFormatCodes2, false, 60, "8 heads, 2 bits"},
    {"d1m", Measure::kDescriptor, k1M, 8, 128, 4, 1024, kFormatCodes2, false, 800, "8 heads, 2 bits"},
    {"rising", Measure::kDescriptor, k1M, 8, 128, 4, 1024, kFormatCodes2, false, 800,
     "8 heads, rising scores", false, Order::kRising},
    {"falling", Measure::kDescriptor, k1M, 8, 128, 4, 1024, kFormatCodes2, false, 800,
     "8 heads, falling scores", false, Order::kFalling},
    {"equal", Measure::kDescriptor, k1M, 8, 128, 4, 1024, kFormatCodes2, false, 800, "8 heads, equal scores",
     false, Order::kEqual},
    {"spike", Measure::kDescriptor, k1M, 8, 128, 4, 1024, kFormatCodes2, false, 800, "8 heads, one spike",
     false, Order::kSpike},
};

}  // namespace

std::span<const Workload> Workloads() { return kWorkloads; }

uint32_t SpikeOf(uint32_t tokens) { return tokens / 2 + 17; }

double SelectionBound(const Workload& workload) {
  return workload.measure == Measure::kDescriptor && workload.tokens >= k1M ? kSelectionBound : 0;
}

double PublishedUs(const Workload& workload) {
  constexpr double kBytesOfNumber = 2;
  constexpr double kBytesOfMicrosecond = 38'000;
  if (workload.format == kFormatBounds || workload.sign_stage) return 0;
  return kBytesOfNumber * workload.tokens * workload.dim * workload.heads / kBytesOfMicrosecond;
}

layout::Descriptor DescriptorOf(const Workload& workload) {
  layout::Descriptor d{};
  d.op = layout::kOpScoreSelect;
  d.format = workload.format;
  d.score_op = workload.format == kFormatBounds ? layout::kScorePageBound
               : workload.relu                  ? layout::kScoreReluDot
                                                : layout::kScoreDot;
  d.group_op = workload.relu ? layout::kGroupNone : layout::kGroupMax;
  d.select_op = layout::kSelectTopK;
  d.queries = 1;
  d.heads = static_cast<uint8_t>(workload.heads);
  d.group = static_cast<uint8_t>(workload.group);
  d.end = workload.tokens;
  d.k = workload.k;
  if (workload.sign_stage) d.k1 = 4 * workload.k;
  return d;
}

}  // namespace mnemo::card::report
