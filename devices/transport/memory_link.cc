#include "devices/transport/memory_link.h"

#include <string_view>
#include <utility>

#include "devices/transport/handshake.h"
#include "devices/transport/shm_channel.h"
#include "devices/transport/worker_link.h"
#include "fpga/layout/layout_hash.h"

namespace mnemo::transport {
namespace {

using layout::AttachHello;

absl::Status ReplyStatus(const AttachReply& reply) {
  const std::string message = FixedText(reply.message);
  const auto code = static_cast<absl::StatusCode>(reply.status);
  return absl::Status(code, "the memory service refuses: " + message);
}

absl::StatusOr<std::unique_ptr<MemoryLink>> AttachShared(const LinkOptions& options,
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
  if (const std::string differs = layout::CompareHello(options.wanted, reply.hello); !differs.empty()) {
    return FailedPrecondition("{}", differs);
  }
  if (reply.status != 0) return ReplyStatus(reply);
  MNEMO_RETURN_IF_ERROR(CheckGranted(reply.hello));
  const RegionPlan plan = PlanRegion(reply.hello);
  if (!memory.valid() || reply.region_length < plan.total_bytes) {
    return InvalidArgument("region_length: {} bytes, {} are needed", reply.region_length, plan.total_bytes);
  }
  MNEMO_ASSIGN_OR_RETURN(
      Region region, Region::Map(std::move(memory), options.owner, reply.region_length, reply.region_key));
  auto channel = std::make_unique<ShmChannel>(std::move(region), std::move(socket));
  return MakeWorkerLink(options, reply.hello, FixedText(reply.device_name), std::move(channel));
}

}  // namespace

absl::StatusOr<std::unique_ptr<MemoryLink>> Attach(const LinkOptions& options) {
  constexpr std::string_view kUnix = "unix:";
  if (options.owner.empty() || options.owner.size() >= kNameBytes) {
    return InvalidArgument("owner: {} bytes, allowed are 1 to {}", options.owner.size(), kNameBytes - 1);
  }
  absl::StatusOr<std::unique_ptr<MemoryLink>> link = InvalidArgument(
      "address: {} is neither unix:/PATH nor of a transport that is built in", options.address);
  if (options.address.starts_with(kUnix)) {
    link = AttachShared(options, options.address.substr(kUnix.size()));
  }
  if (!link.ok()) return Annotate(link.status(), "attaching to " + options.address);
  return link;
}

}  // namespace mnemo::transport
