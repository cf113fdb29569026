// Texts of statuses and of clients' strings, as answers, logs and metrics show them.
#pragma once

#include <string>
#include <string_view>

#include "devices/base/status.h"

namespace mnemo::frontend {

// Longer messages are cut: a status travels in HTTP/2 headers, which peers bound at 8 KiB.
inline constexpr size_t kMaxStatusMessageBytes = 2048;

// The status's message as valid UTF-8 of at most kMaxStatusMessageBytes, cut at a character's end.
std::string StatusMessage(const absl::Status& status);
// "CANCELLED", as metrics and logs name a code.
std::string CodeName(absl::StatusCode code);
// Part of a client's text that is safe in an error message: valid UTF-8, control characters replaced,
// bounded.
std::string Quoted(std::string_view text);

}  // namespace mnemo::frontend
