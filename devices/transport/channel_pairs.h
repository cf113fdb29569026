// Both ends of a channel in one process, for every implementation, for tests.
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
  // Each end has its own memory, so a ring must be made at both.
  bool has_own_memory = false;
  // Makes a pair with zeroed memory of at least `length_bytes` at both ends.
  std::function<ChannelPair(size_t length_bytes)> make;
};

const std::vector<ChannelKind>& ChannelKinds();
// Adds the kinds that this build has in addition to shared memory.
void AddRemoteKinds(std::vector<ChannelKind>* kinds);

}  // namespace mnemo::transport
