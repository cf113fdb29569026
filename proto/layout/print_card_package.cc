// Writes fpga/rtl/mnemo_pkg.sv to standard output.
#include <cstdio>

#include "proto/layout/card_package.h"

int main() {
  const std::string text = mnemo::layout::CardPackage();
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0 ? 0 : 1;
}
