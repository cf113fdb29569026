#include "config/child_config.h"

#include <unistd.h>

#include <catch2/catch.hpp>

#include "config/schema.h"

namespace mnemo::config {
namespace {

using Catch::Matchers::Contains;

const std::string kAwkward = " \"'#: - [a]{b} &c *d !e %f @g `h` | > \\ \\n \xc3\xa4 \xff\xfe \x7f ~ null ";

// A value that is not the default, and as awkward as the key allows.
template <typename T>
void Change(const NumberSpec<T>& spec, Config* config) {
  spec.field(*config) = static_cast<T>(spec.field(*config) == spec.max ? spec.min : spec.max);
}
void Change(const BoolSpec& spec, Config* config) { spec.field(*config) = !spec.field(*config); }
void Change(const TextSpec& spec, Config* config) {
  std::string& text = spec.field(*config);
  switch (spec.form) {
    case TextForm::kAny:
    case TextForm::kModelFile:
    case TextForm::kProgram:
      text = kAwkward;
      break;
    case TextForm::kName:
      text = " \"'#: \\ \xc3\xa4";
      break;
    case TextForm::kIdentifier:
      text = "null";
      break;
    case TextForm::kChoice:
      text = text == spec.choices.back() ? spec.choices.front() : spec.choices.back();
      break;
    case TextForm::kListenAddress:
      text = "unix:/absent/a \"b\" # c.sock";
      break;
    case TextForm::kOptionalListen:
      text = "";
      break;
    case TextForm::kFileMode:
      text = "0007";
      break;
  }
}
void Change(const NumberListSpec& spec, Config* config) { spec.field(*config) = {spec.max, spec.min}; }
void Change(const AddressListSpec& spec, Config* config) {
  spec.field(*config) = {"unix:/a, b]\"\\\n\x01", std::string(spec.network_prefix) + "[::1]:7000"};
}
void Change(const PairListSpec& spec, Config* config) { spec.field(*config) = {"a==, b", "c=" + kAwkward}; }

// The first list that this form takes.
void Change(const FormListSpec& spec, Config* config) {
  for (const char* text : {"perf", "fpga1023=0.25", "dram7  idle=1.5 busy=2"}) {
    spec.field(*config) = {text};
    if (spec.check(spec.field(*config)).ok()) return;
  }
}

TEST_CASE("every key reaches a child as it is, whatever its text") {
  Config config;
  for (const KeySpec& spec : KeySpecs()) {
    const std::string before = spec.Print(config);
    std::visit([&](const auto& value) { Change(value, &config); }, spec.value);
    INFO(spec.key);
    CHECK(spec.Print(config) != before);
  }
  const absl::StatusOr<UniqueFd> image = MakeImage(config);
  REQUIRE(image.ok());
  // Twice: several children share one descriptor.
  for (int child = 0; child < 2; ++child) {
    const absl::StatusOr<Config> read = LoadImage(image->get(), {});
    INFO(read.status());
    REQUIRE(read.ok());
    for (const KeySpec& spec : KeySpecs()) {
      INFO(spec.key);
      CHECK(spec.Print(*read) == spec.Print(config));
    }
  }
}

TEST_CASE("each key alone, and with an override") {
  for (const KeySpec& spec : KeySpecs()) {
    INFO(spec.key);
    const Config defaults;
    const absl::StatusOr<UniqueFd> image = MakeImage(defaults);
    REQUIRE(image.ok());
    const absl::StatusOr<Config> read =
        LoadImage(image->get(), {{std::string(spec.key), spec.Print(defaults)}});
    REQUIRE(read.ok());
    CHECK(Serialize(*read) == Serialize(defaults));
  }
}

TEST_CASE("a child checks what it is given, with key and bound") {
  Config config;
  config.engine.max_running = 0;
  const absl::StatusOr<UniqueFd> image = MakeImage(config);
  REQUIRE(image.ok());
  CHECK_THAT(std::string(LoadImage(image->get(), {}).status().message()),
             Contains("configuration of mnemod:") &&
                 Contains("engine.max_running: 0 is out of range; allowed: [1, 1024]"));
  CHECK(LoadImage(image->get(), {}).status().code() == absl::StatusCode::kInvalidArgument);
  CHECK_FALSE(LoadImage(-1, {}).ok());
}

TEST_CASE("nobody changes a configuration that children have") {
  const absl::StatusOr<UniqueFd> image = MakeImage(Config());
  REQUIRE(image.ok());
  CHECK(::ftruncate(image->get(), 1) != 0);
  CHECK(::pwrite(image->get(), "x", 1, 0) < 0);
}

}  // namespace
}  // namespace mnemo::config
