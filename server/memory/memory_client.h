// Where prepare, relevancy and retrieval of a sequence run: in the worker (inline_client.h) or in the memory
// service (attached_client.h). Both obey the same descriptors and give the same selections.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "devices/base/status.h"
#include "proto/layout/completion.h"
#include "proto/layout/descriptor.h"
#include "proto/layout/payload.h"
#include "server/memory/capabilities.h"
#include "server/memory/step_stats.h"

namespace mnemo::memory {

struct IndexHandle {
  uint32_t id = 0;
  uint16_t generation = 0;
};

// The stored keys of a page: [64][head_dim] float32 of one indexed layer and KV head into `keys`. Called from
// several threads at once.
class KeySource {
 public:
  virtual ~KeySource();
  virtual void Read(int page, int slot, int kv_head, float* keys) const = 0;
};

// K and V as the cache stores them (devices::KvCache::CopyOut): [64] tokens of one page, indexed layer and KV
// head into `kv`. Called from several threads at once.
class KvSource {
 public:
  virtual ~KvSource();
  virtual void Read(int page, int slot, int kv_head, uint8_t* kv) const = 0;
};

// K and V of one layer to fetch, and their destination.
class KvFeed {
 public:
  // Tokens of one KV head of an index.
  struct Piece {
    IndexHandle index;
    int kv_head = 0;
    int tokens = 0;  // at least 1
  };
  virtual ~KvFeed();
  // The next piece, whose token ids it writes to `ids`, [most_tokens] at most; false: there is none.
  virtual bool Next(int most_tokens, Piece* piece, uint32_t* ids) = 0;
  // K and V of the oldest piece that has not been taken yet, [tokens].
  virtual void Take(const uint8_t* kv) = 0;
};

// Cost of prepare, relevancy and retrieval at one client.
struct ClientCost {
  uint64_t prepare_ns = 0;
  uint64_t score_ns = 0;
  uint64_t select_ns = 0;
  uint64_t bytes = 0;  // read from and written to the index, or moved over the attachment
};

// Traffic of the attachment to a memory service, since it was made.
struct AttachmentStats {
  DurationHistogram round_trips;  // submissions of queries that were waited for
  uint64_t bytes_sent = 0;
  uint64_t bytes_received = 0;
};

// One decode row of a sequence, the same for every layer of a step.
struct IndexQuery {
  // All but layer_slot, sequence number, epoch and places. k == 0: nothing is asked for.
  layout::Descriptor op{};
  uint64_t payload_bytes = 0;
  uint64_t result_bytes = 0;
  // Set by Begin: [kv_heads] query blocks of the layer in hand, written by the caller before phase 1.
  uint8_t* payload = nullptr;
  // The caller's, read when a layer opens: [kv_heads] result blocks. Whole when the last phase has run.
  uint8_t* result = nullptr;
  // Added to by Close.
  ClientCost* cost = nullptr;
};

// Used by one thread, but for Run, whose items of one phase run on the device's threads.
class MemoryClient {
 public:
  // Phases of a layer: 0 opens it, the next ones score and select. The last one completes the work: it waits
  // for the service, or runs the rest of a large batch.
  static constexpr int kPhases = 6;

  virtual ~MemoryClient();
  // As shown in Final.memory_steps.
  virtual const std::string& device() const = 0;
  // False: gone for good; every index with it.
  virtual bool alive() const = 0;
  // Greatest k of a query and tokens of an index.
  virtual uint32_t max_k() const = 0;
  // Names of the needs that the client cannot meet. Empty: it meets all.
  virtual std::string Missing(const Needs&) const { return {}; }
  // Zeros where there is no attachment.
  virtual AttachmentStats stats() const { return {}; }

  // RESOURCE_EXHAUSTED: nothing was changed. UNAVAILABLE: the service is gone.
  virtual absl::StatusOr<IndexHandle> Create(const layout::IndexSpec& spec) = 0;
  // A new index with the spec of `source` that shares its first `pages`, which were appended before. As
  // Create.
  virtual absl::StatusOr<IndexHandle> Fork(IndexHandle source, int pages) = 0;
  virtual void Free(IndexHandle index) = 0;
  // Makes records of pages [begin, end), where begin is what was taken before. Returns the page up to which
  // it has taken them; fewer than asked for when the queue is full and `wait` is false. With `wait`, all are
  // indexed on return. UNAVAILABLE: the service is gone or hangs.
  virtual absl::StatusOr<int> Append(IndexHandle index, int begin, int end, const KeySource& keys, bool wait,
                                     ClientCost* cost) = 0;

  // Whether it can keep K and V, for indexes whose spec has a kv_format.
  virtual bool keeps_kv() const { return false; }
  // Keeps K and V of page `page`, the one after those kept before (or one of them, with the same bytes). On
  // return they are kept. UNAVAILABLE: the service is gone or hangs.
  virtual absl::Status StoreKv(IndexHandle index, int page, const KvSource& source, ClientCost* cost);
  // Brings what `feed` asks for, of indexed layer `slot`; between the last phase of Run and the next layer,
  // on any one thread. False when the service is gone or hangs: the step counts for nothing.
  virtual bool FetchKv(int slot, KvFeed* feed);

  // A step's queries, for all its layers. They stay where they are until the next Begin. RESOURCE_EXHAUSTED:
  // more than the queue holds.
  virtual absl::Status Begin(std::span<IndexQuery> queries) = 0;
  virtual int Items(int phase) const = 0;
  virtual void Run(int slot, int phase, int item, int thread) = 0;
  // After the last phase of a layer. False when results are missing, since the service is gone or hangs: the
  // step counts for nothing.
  virtual bool Close() = 0;
};

}  // namespace mnemo::memory
