// The receiving end of one request: a gRPC call, or a list in memory.
#pragma once

#include <optional>

#include "devices/base/status.h"
#include "mnemo/v1/generation.pb.h"

namespace mnemo::frontend {

// The calls of the request core. The messages of one submission are those that generation.proto states for a
// stream: Started, PromptTokens, Deltas, one Final. Messages of several submissions alternate, and the
// request ends with OK after the Final of each, or with the first error of any.
//
// One Write is under way at a time, and nothing follows WriteAndFinish or Finish. These three are called
// without a lock on any thread and may call the core back.
class RequestSink {
 public:
  virtual ~RequestSink() = default;
  // The submissions that the sink can tell apart, at least 1. A request of more is refused.
  virtual int max_submissions() const = 0;
  // Begins to write a message of submission `submission`; the sink calls RequestCore::OnWriteDone when the
  // reader can take the next one. `message` lives until then.
  virtual void Write(int submission, const v1::GenerateResponse& message) = 0;
  // Writes the last message and ends the request with OK. No OnWriteDone follows; OnClosed does. `message`
  // lives until then.
  virtual void WriteAndFinish(int submission, const v1::GenerateResponse& message) = 0;
  // Ends the request; OnClosed follows. `pushback_ms`: when the client may try again, negative: not at all,
  // nothing: as the client likes.
  virtual void Finish(const absl::Status& status, std::optional<int> pushback_ms) = 0;
  // Breaks off a request whose reader takes nothing: a status would wait behind the data that it does not
  // take. The sink answers soon, and not before Abort returns, as for a client that left: by OnCancel, and by
  // OnWriteDone(false) where a Write is under way. May come more than once, until OnClosed. Called with the
  // core's lock held.
  virtual void Abort() = 0;
};

}  // namespace mnemo::frontend
