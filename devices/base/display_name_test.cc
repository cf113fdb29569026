#include "devices/base/display_name.h"

#include <catch2/catch.hpp>

namespace mnemo {
namespace {

TEST_CASE("names are UTF-8 as they are, without control characters") {
  for (const std::string name : {"", "a b", "Mod\u00e8le", "\u901a\u4e49\u5343\u95ee 2.5", "\U0001F600",
                                 "a\u0301", "\u00a0", "\uFFFD", "quote ' \" \\ %s {}"}) {
    INFO(name);
    CHECK(NameProblem(name).empty());
    CHECK(SafeName(name) == name);
  }
}

TEST_CASE("invalid characters are named, and become underscores in the safe name") {
  const auto problem = [](const std::string& name) { return NameProblem(name); };
  CHECK(problem("ab\n") == "has a control character at byte 2");
  CHECK(problem(std::string("a\0b", 3)) == "has a control character at byte 1");
  CHECK(problem("\x7f") == "has a control character at byte 0");
  CHECK(problem("\u00e9\u0085") == "has a control character at byte 2");  // C1 control: next line
  CHECK(problem("a\u2028b") == "has a control character at byte 1");
  CHECK(problem("\u202egnp") == "has a control character at byte 0");
  for (const std::string bytes :
       {"\xff", "\x80", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "\xc3"}) {
    CHECK(problem("a" + bytes) == "is no UTF-8 at byte 1");
    CHECK(SafeName("a" + bytes) == "a" + std::string(bytes.size(), '_'));
  }
  CHECK(problem(std::string(257, 'x')) == "has 257 bytes; at most 256 are allowed");
  CHECK(problem(std::string(256, 'x')).empty());
  std::string wide;
  for (int i = 0; i < 100; ++i) wide += "\u901a";
  CHECK(SafeName(wide) == wide.substr(0, 255));
  CHECK(SafeName("a\n\u202eb\u0085") == "a__b_");
}

}  // namespace
}  // namespace mnemo
