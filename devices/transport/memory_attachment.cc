#include "devices/transport/memory_attachment.h"

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "devices/base/address.h"
#include "devices/transport/channel_attachment.h"
#include "devices/transport/handshake.h"
#include "devices/transport/remote.h"
#include "devices/transport/shm_channel.h"

namespace mnemo::transport {
namespace {

absl::StatusOr<std::unique_ptr<MemoryAttachment>> AttachShared(const AttachOptions& options,
                                                               const std::string& path) {
  const Deadline deadline = std::chrono::steady_clock::now() + options.timeout;
  MNEMO_ASSIGN_OR_RETURN(UniqueFd socket, ConnectUnix(path));
  AttachRequest request{};
  request.hello = options.wanted;
  SetFixedText(options.owner, request.owner);
  MNEMO_RETURN_IF_ERROR(SendAll(socket.get(), std::as_bytes(std::span(&request, 1)), deadline));
  AttachReply reply;
  UniqueFd memory;
  MNEMO_RETURN_IF_ERROR(
      ReceiveAll(socket.get(), std::as_writable_bytes(std::span(&reply, 1)), deadline, &memory));
  MNEMO_RETURN_IF_ERROR(CheckReply(options.wanted, reply));
  if (!memory.valid()) return InvalidArgument("the service sent no memory");
  MNEMO_ASSIGN_OR_RETURN(
      Region region, Region::Map(std::move(memory), options.owner, reply.region_length, reply.region_key));
  auto channel = std::make_unique<ShmChannel>(std::move(region), std::move(socket));
  return MakeChannelAttachment(options, reply.hello, FixedText(reply.device_name), std::move(channel));
}

}  // namespace

absl::StatusOr<std::unique_ptr<MemoryAttachment>> Attach(const AttachOptions& options) {
  constexpr std::string_view kUcx = "ucx:";
  if (options.owner.empty() || options.owner.size() >= kNameBytes) {
    return InvalidArgument("owner: {} bytes, allowed are 1 to {}", options.owner.size(), kNameBytes - 1);
  }
  absl::StatusOr<std::unique_ptr<MemoryAttachment>> attachment =
      InvalidArgument("address: {} is neither unix:/PATH nor ucx:HOST:PORT", options.address);
  if (const std::optional<std::string_view> path = UnixSocketPath(options.address)) {
    attachment = AttachShared(options, std::string(*path));
  } else if (options.address.starts_with(kUcx)) {
    attachment = AttachRemote(options, options.address.substr(kUcx.size()));
  }
  if (!attachment.ok()) return Annotate(attachment.status(), "attaching to " + options.address);
  return attachment;
}

}  // namespace mnemo::transport
