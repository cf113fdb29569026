// Blocking of termination and reload signals from before main.
#pragma once

namespace mnemo {

// Blocks SIGTERM, SIGINT and SIGHUP until a thread takes them (sigwait, signalfd), so that none kills the
// process while it starts. Threads and child processes inherit the mask. In a program whose main calls this,
// the call also runs before its libraries are initialised.
void HoldSignals();
// Restores the default actions, for a program that only prints something and ends.
void ReleaseSignals();

}  // namespace mnemo
