#pragma once

// Waveforms of a Verilated module, in a file that GTKWave and Surfer read. Builds without MNEMO_RTL_TRACE
// have none: tracing slows every clock, asked for or not.

#include <cstdint>
#include <memory>
#include <string>

#include "devices/base/status.h"

class VerilatedContext;
class Vcard_top;

namespace mnemo::sim {

class Waveform {
 public:
  // An empty path: no waveform. UNIMPLEMENTED: a path, and the build has no waveforms.
  static absl::Status Check(const std::string& path);
  // Before the module is made.
  static void Prepare(const std::string& path, VerilatedContext* context);

  Waveform();
  ~Waveform();  // closes the file
  Waveform(const Waveform&) = delete;
  Waveform& operator=(const Waveform&) = delete;

  // With a path that Check accepted. NOT_FOUND: the file cannot be made. The module outlives this.
  absl::Status Open(const std::string& path, Vcard_top* top);
  // The module's signals at this time, which rises. Nothing when no file is open.
  void Write(uint64_t time_ps);

 private:
  struct File;
  std::unique_ptr<File> file_;
};

}  // namespace mnemo::sim
