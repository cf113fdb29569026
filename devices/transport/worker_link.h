// The link that all channels share; memory_link.h says what it does.
#pragma once

#include <memory>
#include <string>

#include "devices/transport/channel.h"
#include "devices/transport/memory_link.h"

namespace mnemo::transport {

// `granted` has passed CheckGranted, and the channel's memory is as long as PlanRegion wants.
// INVALID_ARGUMENT: the rings in it are not what was granted, or the shares of `options` are all zero.
absl::StatusOr<std::unique_ptr<MemoryLink>> MakeWorkerLink(const LinkOptions& options,
                                                           const layout::AttachHello& granted,
                                                           const std::string& device_name,
                                                           std::unique_ptr<Channel> channel);

}  // namespace mnemo::transport
