#pragma once

// Shared by tests of memory devices: a device with its index table, the records that it ought to hold, and
// queries with the answers of the scalar reference.

#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "devices/memory/index_table.h"
#include "devices/memory/memory_device.h"
#include "devices/memory/testing/same_results.h"
#include "proto/layout/validate.h"

namespace mnemo::conformance {

using memory_device::IndexTable;
using memory_device::MemoryDevice;
using memory_device::MemoryDeviceOptions;
using memory_device::Operation;

inline constexpr uint32_t kSlots = 2;
inline constexpr uint32_t kHeads = 3;
inline constexpr uint32_t kOperations = 32;

// Every kind of the build that needs no card, and the test kind as several devices. MNEMO_XRT_IMAGE: the path
// of a card's image; then the kind xrt alone, on that card or its emulation.
std::vector<MemoryDeviceOptions> Devices();
// For messages: the kind and its options.
std::string NameOf(const MemoryDeviceOptions& options);

inline bool Has(uint32_t mask, uint32_t bit) { return (mask >> bit & 1) != 0; }

// A device, its table, and one owner.
class Bench {
 public:
  explicit Bench(const MemoryDeviceOptions& options);

  const layout::AttachHello& caps() const { return device->caps(); }

  layout::Completion Create(uint32_t id, const layout::IndexSpec& spec);
  // keys: f32 [slots][heads][tokens][dim].
  layout::Completion Append(uint32_t id, uint32_t begin, uint32_t end, const std::vector<float>& keys);
  layout::Completion Simple(uint8_t op, uint32_t id, uint32_t end, uint32_t source = 0);
  // The verdict of a descriptor's receiver by the device's caps; regions are large enough.
  layout::Verdict Check(layout::Descriptor d) const;
  std::vector<layout::Completion> Run(std::span<const Operation> operations);

  std::unique_ptr<MemoryDevice> device;
  std::unique_ptr<IndexTable> table;
  uint32_t owner;
};

// Whether there are indexes of this shape.
bool HasIndex(const layout::AttachHello& caps, uint32_t format, uint32_t dim);

// The field that asks for what the caps lack, in the order of proto/layout/validate.cc; SIZE_MAX: none does.
size_t LackingField(const layout::Descriptor& d, const layout::AttachHello& caps);

layout::IndexSpec SpecOf(uint32_t format, uint32_t dim, uint32_t kv_format = 0);

std::vector<float> RandomKeys(std::mt19937& random, size_t count);

// Wire records of an index, by slot and head, then page.
class Records {
 public:
  explicit Records(const layout::IndexSpec& spec) : spec_(spec), columns_(size_t{kSlots} * kHeads) {}
  void Append(const std::vector<float>& keys, uint32_t tokens);
  void Truncate(uint32_t pages) {
    for (auto& column : columns_) column.resize(pages);
  }
  std::vector<const uint8_t*> Of(uint32_t slot, uint32_t head) const;
  uint32_t pages() const { return static_cast<uint32_t>(columns_[0].size()); }
  const layout::IndexSpec& spec() const { return spec_; }

 private:
  layout::IndexSpec spec_;
  std::vector<std::vector<std::shared_ptr<const std::vector<uint8_t>>>> columns_;
};

// A query over an index, with what the reference says of it.
struct Query {
  layout::Descriptor d{};
  uint32_t dim = 0;
  uint32_t tokens = 0;  // of the index
  std::vector<uint8_t> payload;
  std::vector<uint8_t> result;
  std::vector<uint8_t> expected;

  // Whether the results are the expected ones.
  bool Answered() const { return memory_device::testing::SameResults(d, dim, result, expected); }
};

Query MakeQuery(const layout::Descriptor& d, const Records& records, std::mt19937& random);

// Runs the queries and checks completions and results.
void CheckQueries(Bench& bench, std::vector<Query>& queries);

// Queries of long scans that a device answers: all of them. `rtl` and XRT's emulation simulate the same card,
// a minute for 4 million cycles, and take every other query each. Both take all where MNEMO_RTL_CASES is
// over 1.
std::vector<Query> ShareOf(const MemoryDeviceOptions& options, const std::vector<Query>& queries);

template <typename Body>
void ForEachDevice(const Body& body) {
  for (const MemoryDeviceOptions& options : Devices()) {
    const std::string what = NameOf(options);
    CAPTURE(what);
    Bench bench(options);
    body(bench, options);
  }
}

}  // namespace mnemo::conformance
