#include "devices/transport/channel_pairs.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <utility>

#include "devices/transport/region.h"
#include "devices/transport/shm_channel.h"

namespace mnemo::transport {
namespace {

ChannelPair MakeShm(size_t length_bytes) {
  int sockets[2];
  MNEMO_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0);
  absl::StatusOr<Region> own = Region::Create("test", length_bytes);
  MNEMO_CHECK(own.ok());
  absl::StatusOr<Region> mapped =
      Region::Map(UniqueFd(::fcntl(own->fd(), F_DUPFD_CLOEXEC, 0)), "test", own->length_bytes(), own->key());
  MNEMO_CHECK(mapped.ok());
  return {std::make_unique<ShmChannel>(std::move(*own), UniqueFd(sockets[0])),
          std::make_unique<ShmChannel>(std::move(*mapped), UniqueFd(sockets[1]))};
}

}  // namespace

const std::vector<ChannelKind>& ChannelKinds() {
  static const std::vector<ChannelKind> kinds = [] {
    std::vector<ChannelKind> all = {{"shm", false, MakeShm}};
    AddRemoteKinds(&all);
    return all;
  }();
  return kinds;
}

}  // namespace mnemo::transport
