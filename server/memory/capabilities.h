// Needs of a sequence from a memory service, compared with the capabilities that the service grants.
#pragma once

#include <cstdint>
#include <string>

#include "proto/layout/attach.h"
#include "server/memory/methods/method.h"
#include "server/memory/shape.h"

namespace mnemo::memory {

// Masks hold bit n for the enum value n, as in layout::AttachHello.
struct Needs {
  uint32_t ops = 0;
  uint32_t formats = 0;
  uint32_t score_ops = 0;
  uint32_t group_ops = 0;
  uint32_t select_ops = 0;
  bool two_stages = false;
  int head_dim = 0;
  int group = 0;     // query heads that share a KV head
  int kv_heads = 0;  // KV heads of an index
  int tokens = 0;    // tokens of an index
};

// Needs of any sequence of the model. `kv_format`: the layout::Format of the K and V that the service keeps;
// 0: it keeps none.
Needs NeedsOf(const MemoryShape& shape, uint32_t kv_format);
// Needs of a sequence of up to `tokens` positions whose method has these steps.
Needs NeedsOf(const methods::MethodSteps& steps, const MemoryShape& shape, uint32_t kv_format, int tokens);

// Names of the needs that are not granted: "operation GATHER and record format MEANS". Empty: all are
// granted.
std::string MissingOf(const Needs& needs, const layout::AttachHello& granted);

}  // namespace mnemo::memory
