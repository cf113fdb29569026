#include <sys/socket.h>

#include <utility>

#include "devices/transport/channel_pairs.h"
#include "devices/transport/ucx/ucx_channel.h"

namespace mnemo::transport {
namespace {

ChannelPair MakeUcx(size_t length_bytes) {
  int sockets[2];
  MNEMO_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0);
  absl::StatusOr<std::unique_ptr<ucx::UcxChannel>> service = ucx::UcxChannel::Create(length_bytes);
  absl::StatusOr<std::unique_ptr<ucx::UcxChannel>> worker = ucx::UcxChannel::Create(length_bytes);
  MNEMO_CHECK(service.ok() && worker.ok());
  MNEMO_CHECK((*service)->Connect(*(*worker)->Address(), UniqueFd(sockets[0])).ok());
  MNEMO_CHECK((*worker)->Connect(*(*service)->Address(), UniqueFd(sockets[1])).ok());
  return {std::move(*service), std::move(*worker)};
}

}  // namespace

void AddRemoteKinds(std::vector<ChannelKind>* kinds) { kinds->push_back({"ucx", true, MakeUcx}); }

}  // namespace mnemo::transport
