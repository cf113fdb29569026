#include "devices/base/patient_threads.h"

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cerrno>
#include <ctime>

#include "devices/base/status.h"

namespace mnemo {
namespace {

constexpr timespec kPause = {0, 5'000'000};

std::atomic<bool> is_patient = false;
thread_local int impatient_scopes = 0;

}  // namespace

void MakeThreadsPatient() { is_patient = true; }
ImpatientHere::ImpatientHere() { ++impatient_scopes; }
ImpatientHere::~ImpatientHere() { --impatient_scopes; }

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
extern "C" {

// The program's own definition takes precedence over the C library's, for shared libraries as well: see
// RTLD_NEXT in dlsym(3) and ld.so(8).
__attribute__((visibility("default"))) int pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                                                          void* (*routine)(void*), void* argument) {
  using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const auto create = reinterpret_cast<Create>(::dlsym(RTLD_NEXT, "pthread_create"));
  MNEMO_CHECK(create != nullptr);
  int error = 0;
  while ((error = create(thread, attributes, routine, argument)) == EAGAIN && is_patient &&
         impatient_scopes == 0) {
    ::nanosleep(&kPause, nullptr);
  }
  return error;
}

}  // extern "C"
#endif

}  // namespace mnemo
