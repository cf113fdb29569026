// A request to a worker, for tests of both ends of the link.
#pragma once

#include <cstdint>

#include "mnemo/internal/worker.pb.h"

namespace mnemo::testing {

// 20 ids of the tiny model, drawn at temperature 0.8 with a fixed seed: always the same tokens.
internal::v1::Submit MakeSubmit(uint64_t id, int max_tokens);

}  // namespace mnemo::testing
