#include "server/memory/memory_client.h"

namespace mnemo::memory {

KeySource::~KeySource() = default;
MemoryClient::~MemoryClient() = default;

}  // namespace mnemo::memory
