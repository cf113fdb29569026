// Signals that end a process or speak to it, held from before main.
#pragma once

namespace mnemo {

// SIGTERM, SIGINT and SIGHUP stay pending until a thread takes them (sigwait, signalfd), so that none ends
// the process by its default action while it starts. Threads and children inherit that. A program whose main
// calls this does it before the libraries that it links are initialised.
void HoldSignals();
// Gives them back to their default actions, for a program that only prints something and ends.
void ReleaseSignals();

}  // namespace mnemo
