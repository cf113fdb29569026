// write_layout_vectors: writes vectors.txt to standard output. write_layout_vectors FOLDER: writes its
// descriptors with their records as files of that folder, as seeds of the fuzzer.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <vector>

#include "proto/layout/descriptor.h"
#include "proto/layout/vectors.h"

namespace mnemo::layout {
namespace {

std::string FromHex(const std::string& text) {
  std::string bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(text.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

// One file per operation: the descriptor with room for payload and results, the six bytes from which
// tests/fuzz/layout_fuzz.cc makes an index, and records.
bool WriteSeeds(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  std::istringstream lines(MakeVectors(kVectorSeed));
  std::string line;
  std::string records;
  int dim = 0;
  int count = 0;
  while (std::getline(lines, line)) {
    std::istringstream words(line);
    const std::vector<std::string> word{std::istream_iterator<std::string>(words), {}};
    if (word[0] == "records") {
      records = FromHex(word.back()).substr(0, 1024);
    } else if (word[0] == "query") {
      dim = std::stoi(word[5]);
    } else if (word[0] == "select") {
      Descriptor op;
      std::memcpy(&op, FromHex(word[3]).data(), sizeof(op));
      op.end = std::min<uint32_t>(op.end, 128);
      op.payload_length = op.select_op == kSelectLatest ? 0 : 32;
      op.result_region = 1;
      op.result_length = 1024;
      const char index[6] = {1, 0, 0, static_cast<char>(dim / 32), static_cast<char>(op.format - 1), 1};
      std::ofstream file(folder / std::to_string(count++), std::ios::binary);
      file.write(reinterpret_cast<const char*>(&op), sizeof(op)).write(index, sizeof(index)) << records;
    }
  }
  return count > 0;
}

}  // namespace
}  // namespace mnemo::layout

int main(int argc, char** argv) {
  if (argc > 1) {
    return mnemo::layout::WriteSeeds(argv[1]) ? 0 : 1;
  }
  const std::string text = mnemo::layout::MakeVectors(mnemo::layout::kVectorSeed);
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() ? 0 : 1;
}
