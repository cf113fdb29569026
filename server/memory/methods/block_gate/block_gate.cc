// Blocks by a trained gate (SeerAttention-R). The protocol knows the method; no model file has its weights.
#include "server/memory/methods/method.h"

namespace mnemo::memory::methods {

constinit const Method kBlockGate = {.id = AttentionSettings::Method::kBlockGate,
                                     .name = "block_gate",
                                     .weights = "a trained gate",
                                     .without_weights = "block_mean"};

}  // namespace mnemo::memory::methods
