// Renders chats with the model's template: Jinja in a child process that can reach neither files nor the
// network, watched and started again. template_child.py is the other end.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "devices/base/status.h"
#include "server/model/chat_template.h"

namespace mnemo::chat {

class ChatRenderer {
 public:
  struct Options {
    model::ChatTemplate chat_template;
    std::vector<std::string> control_tokens;  // texts of the vocabulary's control tokens
    std::string interpreter = "/usr/bin/python3";
    std::chrono::milliseconds timeout{5000};  // one rendering
    int64_t memory_bytes = int64_t{1} << 30;  // address space of the child
    int64_t output_bytes = int64_t{64} << 20;
  };

  // Starts the child and does not wait for it.
  explicit ChatRenderer(Options options);
  // Kills the child; calls of Render have returned.
  ~ChatRenderer();

  // Waits until the child is warm or has failed to start. OK: chats can be rendered, or UNAVAILABLE: not now,
  // the start is tried again. UNIMPLEMENTED: the template does not compile.
  absl::Status WaitStarted();

  // Any thread; blocks. One chat at a time is rendered, the others wait. INVALID_ARGUMENT names a field of
  // the chat, or the template with its own message or the bound that it met; UNAVAILABLE: there is no child.
  absl::StatusOr<model::RenderedChat> Render(const model::ChatRequest& request);

  int child_pid() const;  // 0 = none is ready

 private:
  struct Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace mnemo::chat
