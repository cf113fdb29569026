#include "fpga/sim/waveform.h"

#include <verilated.h>

#if MNEMO_CARD_TRACE
#include <verilated_fst_c.h>

#include "Vcard_top.h"
#endif

namespace mnemo::sim {

#if MNEMO_CARD_TRACE

struct Waveform::File {
  VerilatedFstC fst;
};

absl::Status Waveform::Check(const std::string& /*path*/) { return absl::OkStatus(); }

void Waveform::Prepare(const std::string& path, VerilatedContext* context) {
  if (!path.empty()) context->traceEverOn(true);
}

absl::Status Waveform::Open(const std::string& path, Vcard_top* top) {
  constexpr int kAllLevels = 99;
  if (path.empty()) return absl::OkStatus();
  auto file = std::make_unique<File>();
  top->trace(&file->fst, kAllLevels);
  file->fst.open(path.c_str());
  if (!file->fst.isOpen()) return absl::NotFoundError(fmt::format("trace: cannot write {}", path));
  file_ = std::move(file);
  return absl::OkStatus();
}

void Waveform::Write(uint64_t time_ps) {
  if (file_ != nullptr) file_->fst.dump(time_ps);
}

#else

struct Waveform::File {};

absl::Status Waveform::Check(const std::string& path) {
  if (path.empty()) return absl::OkStatus();
  return absl::UnimplementedError(fmt::format(
      "trace: {}; this build writes no waveforms: configure one by cmake -DMNEMO_RTL_TRACE=ON", path));
}

void Waveform::Prepare(const std::string& /*path*/, VerilatedContext* /*context*/) {}

absl::Status Waveform::Open(const std::string& /*path*/, Vcard_top* /*top*/) { return absl::OkStatus(); }

void Waveform::Write(uint64_t /*time_ps*/) {}

#endif

Waveform::Waveform() = default;
Waveform::~Waveform() = default;

}  // namespace mnemo::sim
