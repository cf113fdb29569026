// The place between prepare and admit: passes that change a prompt (retrieval, contextual memory) or make
// several submissions of one request.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "devices/base/status.h"
#include "mnemo/v1/generation.pb.h"
#include "server/frontend/validate.h"

namespace mnemo::frontend {

// A request that is valid and tokenized, and not admitted yet.
struct PreparedRequest {
  // At least one. A submission's index in this list is the one that the sink gets with each message
  // (request_sink.h). All have the client's request id and priority.
  std::vector<Submission> submissions;
};

// One kind of change to prompts. A pass outlives the requests that go through it. Thread-safe.
class PromptPass {
 public:
  // One request in the pass. Thread-safe.
  class Call {
   public:
    virtual ~Call() = default;
    // Asks the pass to end this request soon, after which `done` still comes once. Does not block. May call
    // `done` before it returns. No effect once `done` has come.
    virtual void Cancel() = 0;
  };
  using Done = std::function<void(absl::StatusOr<PreparedRequest>)>;

  virtual ~PromptPass() = default;
  // Begins with `prepared`, which is the pass's until it gives it back by `done`: exactly once, on any
  // thread, also before Start returns. The next pass, or admission and dispatch, run on the thread that calls
  // `done`. Start does not block. `request` is what the client sent; it lives until `done` is called.
  //
  // An error ends the request with that status: an absl::Status that names field and bound, as for
  // validation. A pass that changes the length of a prompt keeps decode_from and prompt_logprobs_from within
  // the prompt, and max_tokens within the context where the client named it. A max_tokens that the client did
  // not name is lowered after the passes. The result is null where there is nothing to cancel.
  virtual std::shared_ptr<Call> Start(const v1::GenerateRequest& request, PreparedRequest prepared,
                                      Done done) = 0;
};

}  // namespace mnemo::frontend
