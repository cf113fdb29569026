// Every size that follows from what the daemon may use, decided once: mnemod tells its workers and memory
// services, and the front end offers what they can hold.
#pragma once

#include "config/config.h"
#include "devices/base/resources.h"
#include "devices/device.h"
#include "server/dispatch/dispatcher.h"
#include "server/model/model_config.h"

namespace mnemo::dispatch {

// Which memory service worker `index` uses, of `services` in all: local ones first, then foreign ones.
size_t ServiceOf(int index, size_t services);
// Workers that use local memory service `service`, at least 1.
int SharersOf(const config::Config& config, int service);
// Share of each worker in local memory service `service`. memory.index_bytes is decided.
int64_t QuotaOf(const config::Config& config, int service);

// Resolves `config`: fills in model.context_tokens, cpu.threads, engine.kv_cache_bytes,
// memory.resident_tokens and memory.index_bytes where they leave it to the daemon, and checks what they say.
// Where no sequence can be resident, memory.kv_residency becomes worker. A child that gets the result decides
// the same. `device`: the workers'. Tells in the log what is bound by what. Errors as of CreateDispatcher.
absl::StatusOr<ContextBound> DecideSizes(const model::ModelConfig& model,
                                         const devices::DeviceOptions& device, const Resources& resources,
                                         config::Config* config);

}  // namespace mnemo::dispatch
