// Addresses of sockets as texts: "unix:PATH", or forms that name a host.
#pragma once

#include <optional>
#include <string_view>

namespace mnemo {

// Returns PATH of "unix:PATH", which may be empty; nullopt for any other address. The result points into
// `address`.
constexpr std::optional<std::string_view> UnixSocketPath(std::string_view address) {
  constexpr std::string_view kPrefix = "unix:";
  if (!address.starts_with(kPrefix)) return std::nullopt;
  return address.substr(kPrefix.size());
}

}  // namespace mnemo
