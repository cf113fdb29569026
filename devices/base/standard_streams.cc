#include "devices/base/standard_streams.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

// So early that a sanitizer's own memory may not be there yet.
#define MNEMO_NOT_INSTRUMENTED __attribute__((no_sanitize("address", "thread", "undefined")))

namespace mnemo {

MNEMO_NOT_INSTRUMENTED void HoldStandardStreams() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (::syscall(SYS_fcntl, fd, F_GETFD) >= 0 || errno != EBADF) continue;
    // Children inherit it. The lower ones are open by now, so that this one is the lowest free number.
    if (::syscall(SYS_openat, AT_FDCWD, "/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0) return;
  }
}

// The dynamic loader calls these before the constructors of shared libraries: "Initialization and Termination
// Functions" of the System V ABI.
__attribute__((section(".preinit_array"), used)) void (*const kBeforeLibraries)() = HoldStandardStreams;

}  // namespace mnemo
