#include "devices/transport/channel_pairs.h"

namespace mnemo::transport {

void AddRemoteKinds(std::vector<ChannelKind>*) {}

}  // namespace mnemo::transport
