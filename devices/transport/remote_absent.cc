#include "devices/transport/remote.h"

namespace mnemo::transport {

absl::StatusOr<std::unique_ptr<MemoryAttachment>> AttachRemote(const AttachOptions&,
                                                               const std::string& host_port) {
  return Unimplemented("ucx:{}: this build has no UCX", host_port);
}

absl::StatusOr<std::unique_ptr<RemoteListener>> RemoteListener::Create(const std::string& host_port,
                                                                       const std::string&, ListenerHost*) {
  return Unimplemented("ucx:{}: this build has no UCX", host_port);
}

}  // namespace mnemo::transport
