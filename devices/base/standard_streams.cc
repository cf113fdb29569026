#include "devices/base/standard_streams.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

// The function runs before a sanitizer's own memory is set up.
#define MNEMO_NOT_INSTRUMENTED __attribute__((no_sanitize("address", "thread", "undefined")))

namespace mnemo {

MNEMO_NOT_INSTRUMENTED void HoldStandardStreams() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (::syscall(SYS_fcntl, fd, F_GETFD) >= 0 || errno != EBADF) continue;
    // Child processes inherit it. The lower numbers are open by now, so `fd` is the lowest free one.
    if (::syscall(SYS_openat, AT_FDCWD, "/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0) return;
  }
}

// The dynamic loader calls these before the constructors of shared libraries: "Initialization and Termination
// Functions" of the System V ABI.
__attribute__((section(".preinit_array"), used)) void (*const kBeforeLibraries)() = HoldStandardStreams;

}  // namespace mnemo
