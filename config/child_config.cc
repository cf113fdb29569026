#include "config/child_config.h"

#include <cstring>
#include <string>

#include "config/loader.h"
#include "devices/base/mapping.h"

namespace mnemo::config {

absl::StatusOr<UniqueFd> MakeImage(const Config& config) {
  const std::string text = Serialize(config);
  MNEMO_ASSIGN_OR_RETURN(UniqueFd fd, CreateMemfd("mnemo-config", text.size()));
  {
    MNEMO_ASSIGN_OR_RETURN(const Mapping mapping, Mapping::FromFd(fd.get(), text.size(), true));
    std::memcpy(mapping.mutable_bytes().data(), text.data(), text.size());
  }
  MNEMO_RETURN_IF_ERROR(SealMemfd(fd.get()));
  return fd;
}

absl::StatusOr<Config> LoadImage(int fd, const std::vector<Override>& overrides) {
  MNEMO_ASSIGN_OR_RETURN(const size_t length_bytes, FileLength(fd));
  MNEMO_ASSIGN_OR_RETURN(const Mapping mapping, Mapping::FromFd(fd, length_bytes, false));
  const std::string text(reinterpret_cast<const char*>(mapping.bytes().data()), mapping.bytes().size());
  return LoadText("configuration of mnemod", text,
                  {.file = {}, .overrides = overrides, .check_files = false});
}

}  // namespace mnemo::config
