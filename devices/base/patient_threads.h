// Thread creation that waits while the system or a limit has no room for another thread.
#pragma once

namespace mnemo {

// Makes pthread_create, in all libraries of the process, wait for room for a thread instead of failing with
// EAGAIN. Reason: gRPC counts a thread that it failed to start as a running one, and the calls it hands to
// that thread never finish. Has no effect under the sanitizers, which bring their own pthread_create.
void MakeThreadsPatient();

// While an object exists, pthread_create of the calling thread fails at once. For callers that can do without
// the thread.
class ImpatientHere {
 public:
  ImpatientHere();
  ~ImpatientHere();
  ImpatientHere(const ImpatientHere&) = delete;
  ImpatientHere& operator=(const ImpatientHere&) = delete;
};

}  // namespace mnemo
