// Error handling on the host: absl::Status everywhere. server/frontend converts it to a gRPC status in one
// place.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <utility>

namespace mnemo {

// Helpers that make a status of the named code; arguments as for fmt::format. A message names the field and
// its bound.
template <typename... Args>
absl::Status InvalidArgument(fmt::format_string<Args...> format, Args&&... args) {
  return absl::InvalidArgumentError(fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
absl::Status NotFound(fmt::format_string<Args...> format, Args&&... args) {
  return absl::NotFoundError(fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
absl::Status Unimplemented(fmt::format_string<Args...> format, Args&&... args) {
  return absl::UnimplementedError(fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
absl::Status Unavailable(fmt::format_string<Args...> format, Args&&... args) {
  return absl::UnavailableError(fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
absl::Status ResourceExhausted(fmt::format_string<Args...> format, Args&&... args) {
  return absl::ResourceExhaustedError(fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
absl::Status FailedPrecondition(fmt::format_string<Args...> format, Args&&... args) {
  return absl::FailedPreconditionError(fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
absl::Status Internal(fmt::format_string<Args...> format, Args&&... args) {
  return absl::InternalError(fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
absl::Status DataLoss(fmt::format_string<Args...> format, Args&&... args) {
  return absl::DataLossError(fmt::format(format, std::forward<Args>(args)...));
}

// Returns the status with "context: " before its message.
absl::Status Annotate(const absl::Status& status, const std::string& context);

}  // namespace mnemo

#define MNEMO_CONCAT_INNER(a, b) a##b
#define MNEMO_CONCAT(a, b) MNEMO_CONCAT_INNER(a, b)

// Returns from the enclosing function when `expr` (an absl::Status) is not OK.
#define MNEMO_RETURN_IF_ERROR(expr)                               \
  do {                                                            \
    if (absl::Status mnemo_status = (expr); !mnemo_status.ok()) { \
      return mnemo_status;                                        \
    }                                                             \
  } while (false)

// MNEMO_ASSIGN_OR_RETURN(auto x, F()), where F returns absl::StatusOr: assigns its value to x, or returns its
// status from the enclosing function.
#define MNEMO_ASSIGN_OR_RETURN(lhs, expr) \
  MNEMO_ASSIGN_OR_RETURN_INNER(MNEMO_CONCAT(mnemo_statusor_, __LINE__), lhs, expr)
#define MNEMO_ASSIGN_OR_RETURN_INNER(name, lhs, expr) \
  auto name = (expr);                                 \
  if (!name.ok()) return std::move(name).status();    \
  lhs = std::move(name).value()

// Aborts the process. For bugs of this code base only; bad input, peers and devices get an error status.
// Active in release builds too.
#define MNEMO_CHECK(condition)                                                           \
  do {                                                                                   \
    if (!(condition)) [[unlikely]] {                                                     \
      std::fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                      \
    }                                                                                    \
  } while (false)
