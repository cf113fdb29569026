// Durations of the public protocol.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "google/protobuf/duration.pb.h"

namespace mnemo::frontend {

// A negative value becomes 0.
inline void SetDuration(std::chrono::nanoseconds value, google::protobuf::Duration* duration) {
  const int64_t count = std::max<int64_t>(0, value.count());
  duration->set_seconds(count / 1'000'000'000);
  duration->set_nanos(static_cast<int32_t>(count % 1'000'000'000));
}

}  // namespace mnemo::frontend
