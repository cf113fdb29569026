// The implementation of MemoryAttachment over any channel.
#pragma once

#include <memory>
#include <string>

#include "devices/transport/channel.h"
#include "devices/transport/memory_attachment.h"

namespace mnemo::transport {

// `granted` has passed CheckGranted, and the channel's memory is as long as PlanRegion requires.
// INVALID_ARGUMENT: the rings in it do not match `granted`, or the shares of `options` are all zero.
absl::StatusOr<std::unique_ptr<MemoryAttachment>> MakeChannelAttachment(const AttachOptions& options,
                                                                        const layout::AttachHello& granted,
                                                                        const std::string& device_name,
                                                                        std::unique_ptr<Channel> channel);

}  // namespace mnemo::transport
