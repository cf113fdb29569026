// Prepare, relevancy and retrieval in the worker, on the device's own threads.
#pragma once

#include <memory>
#include <vector>

#include "devices/device.h"
#include "server/memory/memory_client.h"
#include "server/memory/shape.h"

namespace mnemo::memory {

struct InlineOptions {
  MemoryShape shape;
  int max_queries = 0;
  int context_tokens = 0;
  int max_indexes = 0;
};

class InlineClient final : public MemoryClient {
 public:
  // `device` outlives the client.
  static absl::StatusOr<std::unique_ptr<InlineClient>> Create(const InlineOptions& options,
                                                              devices::Device* device);
  ~InlineClient() override;

  // Resident bytes of all indexes.
  int64_t bytes() const;

  const std::string& device() const override;
  bool alive() const override { return true; }
  uint32_t max_k() const override;
  absl::StatusOr<IndexHandle> Create(const layout::IndexSpec& spec) override;
  absl::StatusOr<IndexHandle> Fork(IndexHandle source, int pages) override;
  void Free(IndexHandle index) override;
  absl::StatusOr<int> Append(IndexHandle index, int begin, int end, const KeySource& keys, bool wait,
                             ClientCost* cost) override;
  absl::Status Begin(std::span<IndexQuery> queries) override;
  int Items(int phase) const override;
  void Run(int slot, int phase, int item, int thread) override;
  bool Close() override;

 private:
  struct Impl;
  explicit InlineClient(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mnemo::memory
