// Messages of a chat, written as JSON.
#pragma once

#include <string_view>

#include "client/client.h"

namespace mnemo::bench {

// Adds the messages of a JSON list, or of an object that has the list as "messages" and may have "tools". An
// entry is {"role": TEXT, "content": TEXT, "name": TEXT, "tool_call_id": TEXT, "tool_calls": LIST}. All but
// the role may be left out; a content may be null. INVALID_ARGUMENT names the message and the key.
absl::Status ParseMessages(std::string_view json, v1::Chat* chat);

}  // namespace mnemo::bench
