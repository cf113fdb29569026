// Both ends of a channel in one process, of every implementation, for tests.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "devices/transport/channel.h"

namespace mnemo::transport {

struct ChannelPair {
  std::unique_ptr<Channel> service;
  std::unique_ptr<Channel> worker;
};

struct ChannelKind {
  std::string name;
  // Zeroed memory of at least `length_bytes` at both ends.
  std::function<ChannelPair(size_t length_bytes)> make;
};

const std::vector<ChannelKind>& ChannelKinds();

}  // namespace mnemo::transport
