// The recorded vectors of proto/layout/vectors.txt on every kind of memory device: keys are appended, and
// every recorded query that the device serves gives the recorded result.
#include <catch2/catch.hpp>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "proto/layout/payload.h"
#include "tests/conformance/memory_bench.h"

namespace mnemo::conformance {
namespace {

using layout::Descriptor;
using layout::kPageTokens;

std::vector<uint8_t> Bytes(const std::string& hex) {
  std::vector<uint8_t> bytes(hex.size() / 2);
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<uint8_t>(std::stoul(hex.substr(2 * i, 2), nullptr, 16));
  }
  return bytes;
}

struct Keys {
  uint32_t type = 0;
  uint32_t dim = 0;
  uint32_t pages = 0;
  std::vector<uint8_t> values;
};

struct Recorded {
  std::string keys;
  uint32_t format = 0;
  std::vector<Query> queries;
};

struct Vectors {
  std::map<std::string, Keys> keys;
  std::map<std::string, Recorded> records;
};

Vectors ReadVectors() {
  Vectors vectors;
  std::map<std::string, std::vector<uint8_t>> blocks;
  std::ifstream file(MNEMO_LAYOUT_VECTORS);
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string kind, name, word, hex;
    words >> kind >> name;
    if (kind == "keys") {  // NAME type T dim D pages P hex
      Keys& keys = vectors.keys[name];
      words >> word >> keys.type >> word >> keys.dim >> word >> keys.pages >> hex;
      keys.values = Bytes(hex);
    } else if (kind == "records") {  // NAME of KEYS format F hex
      Recorded& recorded = vectors.records[name];
      words >> word >> recorded.keys >> word >> recorded.format;
    } else if (kind == "block") {  // NAME hex
      words >> hex;
      blocks[name] = Bytes(hex);
    } else if (kind == "select") {  // RECORDS QUERY descriptor result
      Recorded& recorded = vectors.records.at(name);
      Query query;
      words >> word >> hex;
      const std::vector<uint8_t> descriptor = Bytes(hex);
      REQUIRE(descriptor.size() == sizeof query.d);
      std::memcpy(&query.d, descriptor.data(), sizeof query.d);
      if (query.d.select_op != layout::kSelectLatest) query.payload = blocks.at(word);
      words >> hex;
      query.expected = Bytes(hex);
      query.result.resize(query.expected.size());
      query.dim = vectors.keys.at(recorded.keys).dim;
      query.tokens = vectors.keys.at(recorded.keys).pages * kPageTokens;
      recorded.queries.push_back(std::move(query));
    }
  }
  return vectors;
}

void Store(Bench& bench, const Keys& keys, uint32_t format) {
  layout::IndexSpec spec = SpecOf(format, keys.dim);
  spec.layer_slots = spec.heads = 1;
  REQUIRE(bench.Create(0, spec).status == layout::kStatusOk);
  Descriptor d{};
  d.op = layout::kOpAppend;
  d.heads = 1;
  d.format = static_cast<uint8_t>(keys.type);
  d.end = keys.pages * kPageTokens;
  REQUIRE(bench.table->Append(bench.owner, d, keys.values.data()).watermark == d.end);
}

TEST_CASE("memory devices give the recorded results of the recorded keys and queries") {
  const Vectors vectors = ReadVectors();
  REQUIRE(vectors.records.size() == 20);
  ForEachDevice([&](Bench& bench, const MemoryDeviceOptions&) {
    size_t compared = 0;
    for (const auto& [name, recorded] : vectors.records) {
      CAPTURE(name);
      const Keys& keys = vectors.keys.at(recorded.keys);
      if (!HasIndex(bench.caps(), recorded.format, keys.dim) || !Has(bench.caps().formats, keys.type))
        continue;
      Store(bench, keys, recorded.format);
      std::vector<Query> served;
      for (const Query& query : recorded.queries) {
        if (LackingField(query.d, bench.caps()) == SIZE_MAX) served.push_back(query);
      }
      CheckQueries(bench, served);
      compared += served.size();
      REQUIRE(bench.Simple(layout::kOpFree, 0, 0).status == layout::kStatusOk);
    }
    CHECK(compared >= 50);
  });
}

}  // namespace
}  // namespace mnemo::conformance
