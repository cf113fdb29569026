// Writes the tiny model whose options stand as JSON on standard input: make_golden.py's way to the same
// weights.
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>

#include "tests/golden/tiny_spec.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s OUT.gguf < OPTIONS.json\n", argv[0]);
    return 2;
  }
  try {
    const auto options = mnemo::golden::TinyOptionsFromJson(nlohmann::json::parse(std::cin));
    const std::vector<std::byte> bytes = mnemo::testing::TinyModel(options);
    std::ofstream file(argv[1], std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return file.flush() ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
