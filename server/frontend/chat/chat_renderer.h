// Renders chats with the model's template: Jinja in a supervised child process without access to files or the
// network. template_child.py is the child's program.
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
    // Texts of the vocabulary's control tokens.
    std::vector<std::string> control_tokens;
    std::string interpreter = "/usr/bin/python3";
    // Time limit of one rendering.
    std::chrono::milliseconds timeout{5000};
    // Limit on the child's address space.
    int64_t memory_bytes = int64_t{1} << 30;
    int64_t output_bytes = int64_t{64} << 20;
  };

  // Starts the child without waiting for it.
  explicit ChatRenderer(Options options);
  // Kills the child. All calls of Render must have returned.
  ~ChatRenderer();

  // Waits until the child is ready or has failed to start. OK: chats can be rendered. UNAVAILABLE: not now,
  // the start is retried. UNIMPLEMENTED: the template does not compile.
  absl::Status WaitStarted();

  // Any thread; blocks. Renders one chat at a time; others wait. INVALID_ARGUMENT names a field of the chat,
  // or the template with its own message or the limit it exceeded. UNAVAILABLE: there is no child.
  absl::StatusOr<model::RenderedChat> Render(const model::ChatRequest& request);

  // 0: none is ready.
  int child_pid() const;

 private:
  struct Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace mnemo::chat
