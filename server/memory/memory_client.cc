#include "server/memory/memory_client.h"

namespace mnemo::memory {

KeySource::~KeySource() = default;
KvSource::~KvSource() = default;
KvFeed::~KvFeed() = default;
MemoryClient::~MemoryClient() = default;

absl::Status MemoryClient::StoreKv(IndexHandle, int, const KvSource&, ClientCost*) {
  return absl::UnimplementedError("keeps no K and V");
}
bool MemoryClient::FetchKv(int, KvFeed*) { return false; }

}  // namespace mnemo::memory
