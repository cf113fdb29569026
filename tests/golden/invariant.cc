#include "tests/golden/invariant.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "devices/device_registry.h"
#include "tests/golden/model_runner.h"

namespace mnemo::golden {
namespace {

constexpr int kMaxRows = 512;

// The text of one sequence, the same in every batch.
std::vector<int32_t> Text(int sequence, int tokens, int vocabulary) {
  std::vector<int32_t> ids;
  uint64_t state = 0x9e3779b97f4a7c15 * static_cast<uint64_t>(sequence + 1);
  for (int i = 0; i < tokens; ++i) {
    state = state * 6364136223846793005 + 1442695040888963407;
    ids.push_back(static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(vocabulary)));
  }
  return ids;
}

// Logits of the last `matrix.compared_positions` positions of sequences 0..batch-1:
// [batch][positions * vocabulary]. They are fed in chunks of `chunk` tokens a sequence (kUneven: another size
// for each), at most kMaxRows together.
std::vector<std::vector<float>> Compute(ModelRunner& runner, const InvariantMatrix& matrix, int chunk,
                                        int batch) {
  const int vocabulary = runner.vocabulary();
  const int compared_begin = matrix.prompt_tokens - matrix.compared_positions;
  std::vector<std::vector<int32_t>> texts;
  for (int s = 0; s < batch; ++s) {
    runner.Restart(s);
    texts.push_back(Text(s, matrix.prompt_tokens, vocabulary));
  }
  std::vector<std::vector<float>> logits(static_cast<size_t>(batch));
  std::vector<int> positions(static_cast<size_t>(batch), 0);
  while (*std::min_element(positions.begin(), positions.end()) < matrix.prompt_tokens) {
    std::vector<ModelRunner::Chunk> chunks;
    std::vector<int32_t> rows;
    std::vector<int> owners;
    int row = 0;
    for (int s = 0; s < batch; ++s) {
      int& position = positions[static_cast<size_t>(s)];
      const int wanted = chunk == InvariantMatrix::kUneven ? 1 + s * 13 % 29 : chunk;
      const int count = std::min({wanted, std::max(1, kMaxRows / batch), matrix.prompt_tokens - position});
      if (count == 0) continue;
      const std::span<const int32_t> text = texts[static_cast<size_t>(s)];
      chunks.push_back({s, text.subspan(static_cast<size_t>(position), static_cast<size_t>(count))});
      for (int i = 0; i < count; ++i, ++row, ++position) {
        if (position < compared_begin) continue;
        rows.push_back(row);
        owners.push_back(s);
      }
    }
    runner.Forward(chunks);
    if (rows.empty()) continue;
    const std::vector<float> values = runner.Logits(rows);
    for (size_t r = 0; r < rows.size(); ++r) {
      const auto begin = values.begin() + static_cast<std::ptrdiff_t>(r) * vocabulary;
      std::vector<float>& owner = logits[static_cast<size_t>(owners[r])];
      owner.insert(owner.end(), begin, begin + vocabulary);
    }
  }
  return logits;
}

}  // namespace

std::vector<devices::DeviceOptions> AllDevices() {
  std::vector<devices::DeviceOptions> all;
  for (const devices::DeviceKind& kind : devices::DeviceKinds()) {
    if (kind.isas.empty()) all.push_back({.kind = kind.name});
    for (const std::string& isa : kind.isas) all.push_back({.kind = kind.name, .isa = isa});
  }
  return all;
}

absl::StatusOr<InvariantResult> CheckInvariant(const model::GgufFile& file,
                                               const devices::DeviceOptions& device,
                                               const InvariantMatrix& matrix) {
  InvariantResult result;
  const int most = *std::max_element(matrix.batches.begin(), matrix.batches.end());
  std::vector<std::vector<float>> expected;  // by sequence, of the first combination that had it
  for (const int threads : matrix.threads) {
    devices::DeviceOptions options = device;
    options.threads = threads;
    MNEMO_ASSIGN_OR_RETURN(
        const std::unique_ptr<ModelRunner> runner,
        ModelRunner::Create(
            file, options,
            {.max_rows = kMaxRows, .max_logit_rows = most * matrix.compared_positions, .max_sequences = most},
            most, matrix.prompt_tokens));
    result.numerics_id = runner->device().info().numerics_id;
    for (const int batch : matrix.batches) {
      for (const int chunk : matrix.chunks) {
        const std::vector<std::vector<float>> logits = Compute(*runner, matrix, chunk, batch);
        for (size_t s = 0; s < logits.size(); ++s) {
          if (s == expected.size()) {
            expected.push_back(logits[s]);
          } else if (logits[s].size() != expected[s].size() ||
                     std::memcmp(logits[s].data(), expected[s].data(), logits[s].size() * sizeof(float)) !=
                         0) {
            result.wrong.push_back(
                fmt::format("sequence {} with chunk {}, batch {}, threads {}", s, chunk, batch, threads));
          }
        }
        ++result.combinations;
      }
    }
  }
  result.sequences_differ = expected.size() > 1 && expected[0] != expected[1];
  return result;
}

}  // namespace mnemo::golden
