// Prepare, relevancy and retrieval in the memory service, over an attachment's rings and shared buffers.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "devices/device.h"
#include "devices/transport/memory_attachment.h"
#include "server/memory/memory_client.h"
#include "server/memory/shape.h"

namespace mnemo::memory {

struct AttachOptions {
  std::string address;  // the service's: "unix:/PATH" or "ucx:HOST:PORT"
  std::string owner;    // name of the worker, for the service's logs
  MemoryShape shape;
  int max_queries = 0;  // decode rows of a step
  // The layout::Format of K and V that the service keeps; 0: it keeps none.
  uint32_t kv_format = 0;
  // Puts a decorator around each new attachment, if given.
  std::function<std::unique_ptr<transport::MemoryAttachment>(std::unique_ptr<transport::MemoryAttachment>)>
      wrap;
  // A service that does not answer within this time counts as hung and is no longer used.
  std::chrono::milliseconds timeout{1000};
};

// All input from the service is checked before use: a faulty service costs time and never causes a wrong
// memory access.
class AttachedClient final : public MemoryClient {
 public:
  // `device` outlives the client.
  static absl::StatusOr<std::unique_ptr<AttachedClient>> Create(
      const AttachOptions& options, devices::Device* device,
      std::unique_ptr<transport::MemoryAttachment> attachment);
  // Attaches to options.address and divides the shared region as the model needs it. Errors are those of
  // transport::Attach.
  static absl::StatusOr<std::unique_ptr<MemoryClient>> Attach(const AttachOptions& options,
                                                              devices::Device* device);
  ~AttachedClient() override;

  const std::string& device() const override;
  bool alive() const override;
  uint32_t max_k() const override;
  std::string Missing(const Needs& needs) const override;
  AttachmentStats stats() const override;
  absl::StatusOr<IndexHandle> Create(const layout::IndexSpec& spec) override;
  absl::StatusOr<IndexHandle> Fork(IndexHandle source, int pages) override;
  void Free(IndexHandle index) override;
  absl::StatusOr<int> Append(IndexHandle index, int begin, int end, const KeySource& keys, bool wait,
                             ClientCost* cost) override;
  bool keeps_kv() const override;
  absl::Status StoreKv(IndexHandle index, int page, const KvSource& source, ClientCost* cost) override;
  bool FetchKv(int slot, KvFeed* feed) override;
  absl::Status Begin(std::span<IndexQuery> queries) override;
  int Items(int phase) const override;
  void Run(int slot, int phase, int item, int thread) override;
  bool Close() override;

 private:
  struct Impl;
  explicit AttachedClient(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mnemo::memory
