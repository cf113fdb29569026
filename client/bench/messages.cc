#include "client/bench/messages.h"

#include <nlohmann/json.hpp>

namespace mnemo::bench {
namespace {

using Json = nlohmann::ordered_json;

absl::Status TakeText(const Json& object, const char* key, size_t index, std::string* out) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return absl::OkStatus();
  if (!found->is_string()) return InvalidArgument("messages[{}].{} is no text", index, key);
  *out = found->get<std::string>();
  return absl::OkStatus();
}

absl::Status AddMessage(const Json& object, size_t index, v1::Chat* chat) {
  if (!object.is_object()) return InvalidArgument("messages[{}] is no object", index);
  if (!object.contains("role")) return InvalidArgument("messages[{}].role is missing", index);
  v1::Chat::Message* message = chat->add_messages();
  MNEMO_RETURN_IF_ERROR(TakeText(object, "role", index, message->mutable_role()));
  MNEMO_RETURN_IF_ERROR(TakeText(object, "content", index, message->mutable_content()));
  MNEMO_RETURN_IF_ERROR(TakeText(object, "name", index, message->mutable_name()));
  MNEMO_RETURN_IF_ERROR(TakeText(object, "tool_call_id", index, message->mutable_tool_call_id()));
  if (const auto calls = object.find("tool_calls"); calls != object.end() && !calls->is_null()) {
    if (!calls->is_array()) return InvalidArgument("messages[{}].tool_calls is no list", index);
    message->set_tool_calls_json(calls->dump());
  }
  for (const auto& [key, value] : object.items()) {
    if (key != "role" && key != "content" && key != "name" && key != "tool_call_id" && key != "tool_calls") {
      return InvalidArgument(
          "messages[{}].{} is unknown; allowed: role, content, name, tool_call_id, tool_calls", index, key);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ParseMessages(std::string_view json, v1::Chat* chat) {
  const Json whole = Json::parse(json, nullptr, false);
  if (whole.is_discarded()) return InvalidArgument("not JSON");
  const Json* list = &whole;
  if (whole.is_object()) {
    const auto found = whole.find("messages");
    if (found == whole.end()) return InvalidArgument("messages is missing");
    list = &*found;
    if (const auto tools = whole.find("tools"); tools != whole.end()) {
      if (!tools->is_array()) return InvalidArgument("tools is no list");
      chat->set_tools_json(tools->dump());
    }
  }
  if (!list->is_array() || list->empty()) return InvalidArgument("holds no list of messages");
  for (size_t i = 0; i < list->size(); ++i) MNEMO_RETURN_IF_ERROR(AddMessage((*list)[i], i, chat));
  return absl::OkStatus();
}

}  // namespace mnemo::bench
