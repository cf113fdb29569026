// Between what the front end sends or reads and what the engine takes or gives.
#pragma once

#include <chrono>

#include "mnemo/internal/worker.pb.h"
#include "server/worker/engine.h"

namespace mnemo::worker_service {

// The engine's number of the request is the caller's to set. `now`: what the deadline is counted from.
worker::EngineRequest ToEngineRequest(const internal::v1::Submit& submit,
                                      std::chrono::steady_clock::time_point now);
void FillMemoryStep(const memory::MemoryStepStat& stat, internal::v1::MemoryStep* out);
// `out` is empty.
void FillMemoryFigures(const memory::PipelineStats& stats, internal::v1::MemoryFigures* out);

}  // namespace mnemo::worker_service
