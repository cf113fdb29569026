#include "devices/base/service_manager.h"

#include <systemd/sd-daemon.h>

#include <cstdlib>
#include <cstring>

namespace mnemo {

void NotifySystemd(const std::string& state) {
  // Best effort by its nature: there is nobody to tell that it failed.
  (void)sd_notify(/*unset_environment=*/0, state.c_str());
}

absl::StatusOr<std::vector<PassedDescriptor>> TakePassedDescriptors() {
  char** names = nullptr;
  const int count = sd_listen_fds_with_names(/*unset_environment=*/1, &names);
  if (count < 0) return Internal("LISTEN_FDS, LISTEN_FDNAMES: {}", std::strerror(-count));
  std::vector<PassedDescriptor> passed;
  for (int i = 0; i < count; ++i) {
    passed.push_back({names[i], UniqueFd(SD_LISTEN_FDS_START + i)});
    std::free(names[i]);
  }
  std::free(names);
  return passed;
}

void KeepDescriptor(const std::string& name, int fd) {
  const std::string state = "FDSTORE=1\nFDNAME=" + name;
  (void)sd_pid_notify_with_fds(/*pid=*/0, /*unset_environment=*/0, state.c_str(), &fd, 1);
}

void ForgetDescriptor(const std::string& name) { NotifySystemd("FDSTOREREMOVE=1\nFDNAME=" + name); }

}  // namespace mnemo
