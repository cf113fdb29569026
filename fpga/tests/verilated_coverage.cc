// Coverage of Verilated models, with MNEMO_RTL_COVERAGE alone: the generated destructor of a model calls
// MnemoKeepCoverage, while the model's counters still exist. The sums of all models of a process go to one
// file in the folder MNEMO_COVERAGE_FOLDER at exit; without that variable nothing is kept.

#include <unistd.h>
#include <verilated.h>
#include <verilated_cov.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

namespace {

struct Sums {
  std::string base;
  std::map<std::string, uint64_t> points;  // a line of Verilator's file without its count

  Sums() {
    const char* folder = std::getenv("MNEMO_COVERAGE_FOLDER");
    if (folder != nullptr) base = std::string(folder) + "/" + std::to_string(getpid());
  }
  Sums(const Sums&) = delete;
  Sums& operator=(const Sums&) = delete;
  ~Sums() {
    if (base.empty() || points.empty()) return;
    std::ofstream file(base + ".dat");
    for (const auto& [point, count] : points) file << point << ' ' << count << '\n';
  }

  void Add(const std::string& name) {
    std::ifstream file(name);
    std::string line;
    while (std::getline(file, line)) {
      const size_t blank = line.rfind(' ');
      if (line.rfind("C '", 0) != 0 || blank == std::string::npos) continue;
      points[line.substr(0, blank)] += std::strtoull(line.c_str() + blank, nullptr, 10);
    }
  }
};

}  // namespace

void MnemoKeepCoverage(VerilatedContext* context) {
  static Sums sums;
  if (!sums.base.empty()) {
    const std::string part = sums.base + ".part";
    // Each instance has lines of its own: points of a generate loop have nothing else that tells them apart.
    context->coveragep()->forcePerInstance(true);
    context->coveragep()->write(part.c_str());
    sums.Add(part);
    std::filesystem::remove(part);
  }
  // The points refer to counters of the model that ends now.
  context->coveragep()->clear();
}
