// The numeric invariant at the level of the forward pass. The logits of a position are the same bits for all
// chunks of its tokens, all other sequences in the batch and all numbers of threads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "devices/device.h"
#include "server/model/gguf.h"

namespace mnemo::golden {

struct InvariantMatrix {
  static constexpr int kUneven = 0;
  std::vector<int> chunks;   // tokens of a sequence in one Forward; kUneven: another size for each sequence
  std::vector<int> batches;  // sequences computed together, each with a text of its own
  std::vector<int> threads;
  int prompt_tokens = 0;
  int compared_positions = 0;  // the last ones of the prompt
};

// Every kind of device in this program, with every instruction set that it has here.
std::vector<devices::DeviceOptions> AllDevices();

struct InvariantResult {
  std::string numerics_id;
  int combinations = 0;            // compared with the first
  bool sequences_differ = false;   // the logits of two texts differ, so that the comparison means something
  std::vector<std::string> wrong;  // combinations whose logits differ, in words
};
absl::StatusOr<InvariantResult> CheckInvariant(const model::GgufFile& file,
                                               const devices::DeviceOptions& device,
                                               const InvariantMatrix& matrix);

}  // namespace mnemo::golden
