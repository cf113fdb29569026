// State of the process for systemd (sd_notify protocol), where NOTIFY_SOCKET is set.
#pragma once

#include <string>

namespace mnemo::frontend {

// `state` as in "READY=1". No effect without NOTIFY_SOCKET or without a listener there. Does not block.
void NotifySystemd(const std::string& state);

}  // namespace mnemo::frontend
