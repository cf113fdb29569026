// Writes vectors.txt to standard output.
#include <cstdio>

#include "fpga/layout/vectors.h"

int main() {
  const std::string text = mnemo::layout::MakeVectors(mnemo::layout::kVectorSeed);
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() ? 0 : 1;
}
