// Tells systemd of a process's state (sd_notify protocol), where NOTIFY_SOCKET is set.
#pragma once

#include <string>

namespace mnemo::frontend {

// `state` as in "READY=1". Nothing happens without NOTIFY_SOCKET or when nobody listens there.
void NotifySystemd(const std::string& state);

}  // namespace mnemo::frontend
