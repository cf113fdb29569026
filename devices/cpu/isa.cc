#include "devices/cpu/isa.h"

namespace mnemo::devices::cpu {
namespace {

// __builtin_cpu_supports also checks that the operating system saves the wider registers.
bool HasAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

bool HasAvx512() {
  return HasAvx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

std::vector<const Kernels*> Available() {
  std::vector<const Kernels*> all = {BaselineKernels()};
  if (HasAvx2()) all.push_back(Avx2Kernels());
  if (HasAvx512()) all.push_back(Avx512Kernels());
  if (HasAvx512() && __builtin_cpu_supports("avx512vnni")) all.push_back(Avx512VnniKernels());
  return all;
}

}  // namespace

std::vector<std::string> Isas() {
  std::vector<std::string> names;
  for (const Kernels* kernels : Available()) names.emplace_back(kernels->isa);
  return names;
}

const Kernels* FindKernels(std::string_view isa) {
  const std::vector<const Kernels*> all = Available();
  if (isa == "auto") return all.back();
  for (const Kernels* kernels : all) {
    if (isa == kernels->isa) return kernels;
  }
  return nullptr;
}

}  // namespace mnemo::devices::cpu
