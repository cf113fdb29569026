#include "devices/memory/codes.h"

#include <algorithm>
#include <cstring>

#include "devices/cpu/index_kernels.h"

namespace mnemo::memory_device {
namespace {

const devices::cpu::IndexKernels& Best() {
  static const devices::cpu::IndexKernels* const kBest = devices::cpu::FindIndexKernels("auto");
  return *kBest;
}

}  // namespace

void MakeRecordFast(const layout::PageKeys& keys, uint32_t dim, uint32_t record_format,
                    std::span<uint8_t> record) {
  if (!layout::IsIndexDim(dim) || !layout::IsRecordFormat(record_format) ||
      layout::ValueBytes(keys.value_type) == 0 || record.size() < layout::RecordBytes(record_format, dim)) {
    std::fill(record.begin(), record.end(), uint8_t{0});
    return;
  }
  Best().make_record(keys.data, keys.row_stride_bytes, keys.value_type, dim, record_format, record.data(),
                     record.size());
}

void MakeQueryBlockFast(std::span<const float> queries, uint32_t group, uint32_t dim, uint32_t record_format,
                        float softmax_scale, std::span<const int16_t> weights, std::span<uint8_t> block) {
  if (!layout::IsIndexDim(dim)) {
    layout::MakeQueryBlock(queries, group, dim, record_format, softmax_scale, weights, block);
    return;
  }
  const uint64_t params = layout::QueryParamOffset(group, dim);
  const uint64_t codes_end = uint64_t{group} * dim;
  const uint64_t params_end = params + uint64_t{group} * sizeof(layout::QueryParam);
  std::memset(block.data() + codes_end, 0, params - codes_end);
  std::memset(block.data() + params_end, 0, block.size() - params_end);
  for (uint32_t g = 0; g < group; ++g) {
    Best().make_query(queries.data() + size_t{g} * dim, dim, layout::IsRotated(record_format), softmax_scale,
                      weights.empty() ? int16_t{0} : weights[g],
                      reinterpret_cast<int8_t*>(block.data()) + size_t{g} * dim,
                      block.data() + params + g * sizeof(layout::QueryParam));
  }
}

}  // namespace mnemo::memory_device
