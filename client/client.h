// C++ client of mnemo.v1.
//
// Errors are absl::Status with the code and message that the server sent; a daemon that cannot be reached
// is UNAVAILABLE. A failed call may carry a retry hint (RetryPushback). Sizes are bytes, times are
// std::chrono; requests and answers are the protobuf messages of proto/mnemo/v1, whose comments say unit,
// range and default of each field.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "devices/base/status.h"
#include "mnemo/v1/admin.pb.h"
#include "mnemo/v1/generation.pb.h"

namespace mnemo::client {

struct ClientOptions {
  std::chrono::milliseconds connect_timeout{5000};
  // False: the first refusal ends Connect. True: tries again until connect_timeout, for a daemon that is
  // still starting.
  bool wait_for_server = false;
  // Timeout of Tokenize, ListModels, Status ... when the call names none.
  std::chrono::milliseconds unary_timeout{30000};
  int64_t max_message_bytes = 64 << 20;  // largest answer; a larger one ends RESOURCE_EXHAUSTED
  // True: a connection of its own instead of the one that all clients of this process and address share. For
  // load generators.
  bool private_connection = false;
};

// Attempts are spaced by the server's grpc-retry-pushback-ms where it sent one (a negative one forbids
// another attempt), else by `backoff`, doubled each time up to `max_backoff`. No attempt starts that could
// not begin before the call's deadline.
struct RetryPolicy {
  int max_attempts = 4;  // in all, >= 1
  bool on_unavailable = true;
  bool on_overload = false;  // RESOURCE_EXHAUSTED that carries a pushback
  std::chrono::milliseconds backoff{50};
  std::chrono::milliseconds max_backoff{2000};
};

struct CallOptions {
  // Time from now for the whole call, retries included. Absent: unary_timeout, and no limit for Generate.
  std::optional<std::chrono::nanoseconds> timeout;
  // Generate is tried again only while it has delivered no message; Drain never.
  RetryPolicy retry;
};

// Milliseconds to wait before a retry, as the server asked; negative = do not retry; absent = it did not ask.
std::optional<int> RetryPushback(const absl::Status& status);

// INVALID_ARGUMENT naming the byte of the first malformed sequence, when `text` is not UTF-8 and so cannot be
// a protobuf string.
absl::Status CheckUtf8(const std::string& what, const std::string& text);

// Receives one generation. Called on threads of gRPC, never two calls at once. Do not block: the next message
// is read when OnMessage has returned, and a long call delays other streams, too.
class GenerateObserver {
 public:
  virtual ~GenerateObserver() = default;
  virtual void OnMessage(v1::GenerateResponse message) = 0;
  // Exactly once, after the last message. OK only when a Final was delivered; CANCELLED after Cancel.
  virtual void OnDone(const absl::Status& status) = 0;
};

// Handle of a running generation. Thread-safe. Dropping it does not end the call.
class GenerateCall {
 public:
  virtual ~GenerateCall() = default;
  // The server frees the request's resources within one engine step; the observer still gets OnDone. A second
  // call, or one after the end, does nothing.
  virtual void Cancel() = 0;
};

// A generation that is pulled. Reads ahead a bounded number of messages (kReadAhead); a caller that does not
// pull slows the server's stream down. One thread pulls; Cancel may come from any thread, not from a signal
// handler. The destructor cancels and waits.
class GenerateStream {
 public:
  static constexpr int kReadAhead = 64;
  virtual ~GenerateStream() = default;
  // Blocks for the next message; absent at the end of the stream.
  virtual std::optional<v1::GenerateResponse> Next() = 0;
  // The status of the call, after Next has returned no message.
  virtual const absl::Status& status() const = 0;
  virtual void Cancel() = 0;
};

// One daemon. Thread-safe. Calls in progress own their resources: the client may be destroyed before they
// end.
class Client {
 public:
  // `address` is "host:port", "[v6]:port" or "unix:/path". Blocks until the connection stands, is refused, or
  // connect_timeout has passed: UNAVAILABLE with the address and the reason.
  static absl::StatusOr<std::unique_ptr<Client>> Connect(const std::string& address,
                                                         const ClientOptions& options);
  static absl::StatusOr<std::unique_ptr<Client>> Connect(const std::string& address) {
    return Connect(address, ClientOptions());
  }
  ~Client();

  // Starts a generation and returns at once. The observer is kept until OnDone. INVALID_ARGUMENT arrives
  // through OnDone, too.
  std::shared_ptr<GenerateCall> Generate(v1::GenerateRequest request, const CallOptions& options,
                                         std::shared_ptr<GenerateObserver> observer);
  std::unique_ptr<GenerateStream> Generate(v1::GenerateRequest request, const CallOptions& options = {});

  // The calls below block until the answer or the deadline.
  absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request,
                                                const CallOptions& options = {});
  absl::StatusOr<v1::DetokenizeResponse> Detokenize(const v1::DetokenizeRequest& request,
                                                    const CallOptions& options = {});
  absl::StatusOr<v1::ListModelsResponse> ListModels(const CallOptions& options = {});
  absl::StatusOr<v1::EndSessionResponse> EndSession(const std::string& session_id,
                                                    const CallOptions& options = {});
  absl::StatusOr<v1::StatusResponse> Status(const CallOptions& options = {});
  // UNIMPLEMENTED: the daemon's machine has neither a meter nor a model of energy.
  absl::StatusOr<v1::EnergyResponse> Energy(const CallOptions& options = {});
  // Waits for running requests up to drain_timeout, after which the server cuts them. The call's own timeout
  // defaults to drain_timeout plus unary_timeout.
  absl::StatusOr<v1::DrainResponse> Drain(std::chrono::milliseconds drain_timeout,
                                          const CallOptions& options = {});
  absl::Status Resume(const CallOptions& options = {});

 private:
  struct Impl;
  explicit Client(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Joins the messages of one generation. Not thread-safe.
struct Completion {
  v1::Started started;
  std::string text;
  std::vector<v1::Token> prompt_tokens;  // with output.prompt_logprobs; the first has position prompt_start
  int prompt_start = 0;
  std::vector<v1::Token> tokens;
  std::optional<v1::Final> final;

  void Add(v1::GenerateResponse message);
};

// "eos", "stop", "length"; "unspecified" for anything else.
const char* FinishReasonName(v1::FinishReason reason);

}  // namespace mnemo::client
