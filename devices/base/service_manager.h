// Exchange with the service manager that started this process: its state (sd_notify(3)) and the descriptors
// that it is given (sd_listen_fds(3)). The manager also keeps descriptors for the unit's next process
// (FileDescriptorStoreMax= in systemd.service(5)). Without a manager the functions have no effect.
#pragma once

#include <string>
#include <vector>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"

namespace mnemo {

// `state` as in "READY=1". Does not block.
void NotifySystemd(const std::string& state);

struct PassedDescriptor {
  // That of the store, FileDescriptorName= of a socket unit, or the name of that unit.
  std::string name;
  UniqueFd fd;
};
// The descriptors that this process was started with, in the manager's order; children inherit none of them.
// Call once, before threads start: it clears the variables LISTEN_*. INTERNAL: the variables are malformed.
absl::StatusOr<std::vector<PassedDescriptor>> TakePassedDescriptors();

// Has the manager keep a duplicate of `fd` for the unit's next process. `name`: 1 to 255 printable
// characters of ASCII without a colon. A manager that keeps no more descriptors drops it.
void KeepDescriptor(const std::string& name, int fd);
// Has the manager close all descriptors that it keeps under this name.
void ForgetDescriptor(const std::string& name);

}  // namespace mnemo
