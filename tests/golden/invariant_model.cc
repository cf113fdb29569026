// invariant_model MODEL.gguf: the numeric invariant on a real model, on every kind of device with its best
// instruction set. Exit status 1 when a bit differs.
#include <fmt/format.h>

#include <cstdio>

#include "devices/device_registry.h"
#include "tests/golden/invariant.h"

namespace {

absl::StatusOr<bool> Check(const char* path) {
  using mnemo::golden::InvariantMatrix;
  MNEMO_ASSIGN_OR_RETURN(const auto file, mnemo::model::GgufFile::Open(path));
  const InvariantMatrix matrix{
      .chunks = {1, 512}, .batches = {1, 3}, .threads = {1, 2}, .prompt_tokens = 16, .compared_positions = 3};
  bool good = true;
  for (const mnemo::devices::DeviceKind& kind : mnemo::devices::DeviceKinds()) {
    MNEMO_ASSIGN_OR_RETURN(const auto result,
                           mnemo::golden::CheckInvariant(*file, {.kind = kind.name}, matrix));
    for (const std::string& wrong : result.wrong) fmt::print("{}: {}\n", result.numerics_id, wrong);
    fmt::print("{}: {} combinations, {} differ\n", result.numerics_id, result.combinations,
               result.wrong.size());
    good = good && result.wrong.empty() && result.sequences_differ;
  }
  return good;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s MODEL.gguf\n", argv[0]);
    return 2;
  }
  const auto good = Check(argv[1]);
  if (good.ok()) return *good ? 0 : 1;
  std::fprintf(stderr, "%s\n", std::string(good.status().message()).c_str());
  return 1;
}
