#include "proto/layout/card.h"

#include <catch2/catch.hpp>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>

#include "proto/layout/card_hash.h"
#include "proto/layout/card_package.h"

namespace mnemo::layout {
namespace {

std::string Read(const std::string& name) {
  std::ifstream file(std::string(MNEMO_SOURCE_DIR) + "/" + name, std::ios::binary);
  REQUIRE(file);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// The names of all enumerators of a header.
std::set<std::string> Enumerators(const std::string& header) {
  const std::regex enumerator(R"(\n  (k\w+) = )");
  std::set<std::string> names;
  for (std::sregex_iterator at(header.begin(), header.end(), enumerator); at != std::sregex_iterator();
       ++at) {
    names.insert((*at)[1]);
  }
  return names;
}

// kCardRegMagic -> CARD_REG_MAGIC.
std::string Capitals(const std::string& name) {
  const std::string apart = std::regex_replace(name.substr(1), std::regex("([a-z0-9])([A-Z])"), "$1_$2");
  std::string capitals;
  for (const char c : apart) {
    capitals += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return capitals;
}

TEST_CASE("the SystemVerilog package is the one that is printed") {
  const std::string printed = CardPackage();
  INFO("run: build/release/tools/print_card_package > fpga/rtl/mnemo_pkg.sv");
  CHECK(Read("fpga/rtl/mnemo_pkg.sv") == printed);
}

TEST_CASE("the package has every enumerator of the card and of query operations") {
  const std::string package = CardPackage();
  for (const char* header : {"card.h", "descriptor.h", "completion.h", "record.h"}) {
    const std::set<std::string> names = Enumerators(Read(std::string("proto/layout/") + header));
    CHECK(names.size() >= 5);
    for (const std::string& name : names) {
      if (name == "kAllLayerSlots") {  // of bulk operations, which no card takes
        continue;
      }
      INFO(header << ": " << name << " as " << Capitals(name));
      CHECK(package.find(" " + Capitals(name) + " = ") != std::string::npos);
    }
  }
}

TEST_CASE("the hash of the card covers every enumerator of card.h") {
  const std::string header = Read("proto/layout/card.h");
  std::set<std::string> listed;
  const std::regex item(R"(\n  X\((k\w+)\))");
  for (std::sregex_iterator at(header.begin(), header.end(), item); at != std::sregex_iterator(); ++at) {
    listed.insert((*at)[1]);
  }
  CHECK(listed == Enumerators(header));
  CHECK(kCardHash != kLayoutHash);
}

TEST_CASE("a resident block's sections follow one another") {
  for (const uint32_t format : {kFormatCodes2, kFormatCodes4, kFormatCodes8, kFormatBounds, kFormatMeans}) {
    for (uint32_t dim = kMinDim; dim <= kCardMaxDim; dim *= 2) {
      const CardBlock block = CardBlockOf(format, dim);
      INFO("format " << format << ", dim " << dim);
      CHECK(block.base <= block.first);
      CHECK(block.first + block.plane_beats <= block.scales);
      CHECK(block.scales <= block.further);
      CHECK(block.further + (block.planes - 1) * block.plane_beats == block.page_row);
      CHECK(block.page_row <= block.beats);
      CHECK(block.beats <= 262);
      CHECK(block.plane_beats * kCardBeatBytes * 8 >= block.vectors * block.vector_elements);
    }
  }
}

}  // namespace
}  // namespace mnemo::layout
