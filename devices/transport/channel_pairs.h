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
  bool has_own_memory = false;  // at each end: a ring must be made at both
  // Zeroed memory of at least `length_bytes` at both ends.
  std::function<ChannelPair(size_t length_bytes)> make;
};

const std::vector<ChannelKind>& ChannelKinds();
// Those that this build has beside shared memory.
void AddRemoteKinds(std::vector<ChannelKind>* kinds);

}  // namespace mnemo::transport
