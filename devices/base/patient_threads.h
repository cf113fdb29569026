// Threads that cannot be started now, since the system or a limit has no room for one more.
#pragma once

namespace mnemo {

// From now on pthread_create waits, in all libraries of the process, while there is no room for a thread,
// instead of failing with EAGAIN: gRPC counts a thread that it could not start as one that works, and the
// calls that it hands to it wait for ever. Without effect under the sanitizers, which have a pthread_create
// of their own.
void MakeThreadsPatient();

// While it lives the calling thread's pthread_create fails at once, for who can do without the thread.
class ImpatientHere {
 public:
  ImpatientHere();
  ~ImpatientHere();
  ImpatientHere(const ImpatientHere&) = delete;
  ImpatientHere& operator=(const ImpatientHere&) = delete;
};

}  // namespace mnemo
