#include "devices/base/early_signals.h"

#include <signal.h>

// The function runs before a sanitizer's own memory is set up.
#define MNEMO_NOT_INSTRUMENTED __attribute__((no_sanitize("address", "thread", "undefined")))

namespace mnemo {
namespace {

MNEMO_NOT_INSTRUMENTED void SetMask(int how) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGHUP);
  ::sigprocmask(how, &set, nullptr);
}

}  // namespace

MNEMO_NOT_INSTRUMENTED void HoldSignals() { SetMask(SIG_BLOCK); }
void ReleaseSignals() { SetMask(SIG_UNBLOCK); }

// The dynamic loader calls these before the constructors of shared libraries: "Initialization and Termination
// Functions" of the System V ABI.
__attribute__((section(".preinit_array"), used)) void (*const kHoldBeforeLibraries)() = HoldSignals;

}  // namespace mnemo
