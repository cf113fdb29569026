#include "client/client.h"

#include <google/protobuf/message.h>
#include <google/protobuf/util/time_util.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <charconv>
#include <condition_variable>
#include <deque>
#include <limits>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "client/call.h"
#include "mnemo/v1/admin.grpc.pb.h"

namespace mnemo::client {
namespace {

using std::chrono::milliseconds;
using std::chrono::system_clock;

class ObserverSink final : public MessageSink {
 public:
  explicit ObserverSink(std::shared_ptr<GenerateObserver> observer) : observer_(std::move(observer)) {}
  bool OnMessage(v1::GenerateResponse message) override {
    observer_->OnMessage(std::move(message));
    return true;
  }
  void OnDone(const absl::Status& status) override { observer_->OnDone(status); }

 private:
  std::shared_ptr<GenerateObserver> observer_;
};

// The queue between gRPC's thread and the pulling thread.
class QueueSink final : public MessageSink {
 public:
  bool OnMessage(v1::GenerateResponse message) override {
    std::lock_guard lock(mutex_);
    if (!discarding_) queue_.push_back(std::move(message));
    ready_.notify_one();
    paused_ = queue_.size() >= GenerateStream::kReadAhead;
    return !paused_;
  }
  void OnDone(const absl::Status& status) override {
    std::lock_guard lock(mutex_);
    status_ = status;
    done_ = true;
    ready_.notify_all();
  }
  // Absent at the end. Sets `resume` when reading was paused and must continue.
  std::optional<v1::GenerateResponse> Pop(bool* resume) {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [&] { return done_ || !queue_.empty(); });
    if (queue_.empty()) return std::nullopt;
    v1::GenerateResponse message = std::move(queue_.front());
    queue_.pop_front();
    *resume = std::exchange(paused_, false);
    return message;
  }
  // Drops all later messages. True when reading was paused and must continue.
  bool Discard() {
    std::lock_guard lock(mutex_);
    discarding_ = true;
    queue_.clear();
    return std::exchange(paused_, false);
  }
  void WaitDone() {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [&] { return done_; });
  }
  const absl::Status& status() const { return status_; }  // of a call that is done

 private:
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<v1::GenerateResponse> queue_;
  bool paused_ = false;
  bool discarding_ = false;
  bool done_ = false;
  absl::Status status_ = absl::UnknownError("the stream has not ended");
};

class PulledStream final : public GenerateStream {
 public:
  PulledStream(std::shared_ptr<StreamCall> call, std::shared_ptr<QueueSink> queue)
      : call_(std::move(call)), queue_(std::move(queue)) {}
  ~PulledStream() override {
    call_->Cancel();
    if (queue_->Discard()) call_->Resume();
    queue_->WaitDone();
  }
  std::optional<v1::GenerateResponse> Next() override {
    bool resume = false;
    std::optional<v1::GenerateResponse> message = queue_->Pop(&resume);
    if (resume) call_->Resume();
    return message;
  }
  const absl::Status& status() const override { return queue_->status(); }
  void Cancel() override { call_->Cancel(); }

 private:
  std::shared_ptr<StreamCall> call_;
  std::shared_ptr<QueueSink> queue_;
};

// Checks every string of a message for UTF-8, without which protobuf does not send it; the error names its
// path.
absl::Status CheckStrings(const google::protobuf::Message& message, const std::string& prefix = "") {
  using google::protobuf::FieldDescriptor;
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const bool is_message = field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
    if (!is_message && field->type() != FieldDescriptor::TYPE_STRING) continue;
    const int count = field->is_repeated() ? reflection.FieldSize(message, field) : 1;
    for (int i = 0; i < count; ++i) {
      const std::string path =
          field->is_repeated() ? fmt::format("{}{}[{}]", prefix, field->name(), i) : prefix + field->name();
      if (is_message) {
        MNEMO_RETURN_IF_ERROR(CheckStrings(field->is_repeated()
                                               ? reflection.GetRepeatedMessage(message, field, i)
                                               : reflection.GetMessage(message, field),
                                           path + "."));
      } else {
        MNEMO_RETURN_IF_ERROR(CheckUtf8(path, field->is_repeated()
                                                  ? reflection.GetRepeatedString(message, field, i)
                                                  : reflection.GetString(message, field)));
      }
    }
  }
  return absl::OkStatus();
}

// gRPC takes ports modulo 65,536, and would reach another server.
absl::Status CheckPort(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || address.starts_with("unix")) return absl::OkStatus();
  const std::string_view text = std::string_view(address).substr(colon + 1);
  uint32_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  const bool is_number = !text.empty() && end == text.data() + text.size();
  if (!is_number || (error == std::errc() && port <= 65535)) return absl::OkStatus();
  return InvalidArgument("address: port {} is out of range; allowed: [1, 65535]", text);
}

// Length of the UTF-8 character at `text[i]`, 0 when malformed (Unicode 15, table 3-7).
size_t CharacterLength(const std::string& text, size_t i) {
  const auto byte = [&](size_t k) {
    return i + k < text.size() ? static_cast<unsigned char>(text[i + k]) : 0U;
  };
  const auto continues = [&](size_t k) { return (byte(k) & 0xC0U) == 0x80U; };
  const unsigned b0 = byte(0);
  const unsigned b1 = byte(1);
  if (b0 < 0x80) return 1;
  if (b0 >= 0xC2 && b0 <= 0xDF) return continues(1) ? 2 : 0;
  if (b0 >= 0xE0 && b0 <= 0xEF) {
    const bool second = continues(1) && !(b0 == 0xE0 && b1 < 0xA0) && !(b0 == 0xED && b1 > 0x9F);
    return second && continues(2) ? 3 : 0;
  }
  if (b0 >= 0xF0 && b0 <= 0xF4) {
    const bool second = continues(1) && !(b0 == 0xF0 && b1 < 0x90) && !(b0 == 0xF4 && b1 > 0x8F);
    return second && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

}  // namespace

absl::Status CheckUtf8(const std::string& what, const std::string& text) {
  for (size_t i = 0; i < text.size();) {
    const size_t length = CharacterLength(text, i);
    if (length == 0) return InvalidArgument("{}: not valid UTF-8 at byte {}", what, i);
    i += length;
  }
  return absl::OkStatus();
}

struct Client::Impl {
  ClientOptions options;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::Generation::Stub> generation;
  std::unique_ptr<v1::Admin::Stub> admin;
  std::shared_ptr<CallCount> calls = std::make_shared<CallCount>();

  // `method`: (grpc::ClientContext*, Response*) -> grpc::Status.
  template <typename Response, typename Method>
  absl::StatusOr<Response> Unary(const CallOptions& call, Method method) const {
    const auto deadline =
        system_clock::now() + std::chrono::duration_cast<system_clock::duration>(
                                  call.timeout.value_or(std::chrono::nanoseconds(options.unary_timeout)));
    for (int attempt = 1;; ++attempt) {
      grpc::ClientContext context;
      context.set_deadline(deadline);
      Response response;
      const absl::Status status = FromGrpc(method(&context, &response), context);
      if (status.ok()) return response;
      const std::optional<milliseconds> delay = RetryDelay(call.retry, status, attempt + 1);
      if (!delay.has_value() || system_clock::now() + *delay >= deadline) return status;
      std::this_thread::sleep_for(*delay);
    }
  }
};

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() { impl_->calls->WaitIdle(); }

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(const std::string& address,
                                                        const ClientOptions& options) {
  if (address.empty()) return InvalidArgument("address: empty; want host:port or unix:/path");
  MNEMO_RETURN_IF_ERROR(CheckPort(address));
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(
      static_cast<int>(std::clamp<int64_t>(options.max_message_bytes, 1, std::numeric_limits<int>::max())));
  arguments.SetMaxSendMessageSize(-1);  // the server's limit decides
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  // gRPC's own retries are off: they would multiply with those of RetryPolicy.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  if (options.private_connection) arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);

  auto impl = std::make_unique<Impl>();
  impl->options = options;
  impl->channel = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  impl->generation = v1::Generation::NewStub(impl->channel);
  impl->admin = v1::Admin::NewStub(impl->channel);

  const auto deadline = system_clock::now() + options.connect_timeout;
  for (grpc_connectivity_state state = impl->channel->GetState(true); state != GRPC_CHANNEL_READY;
       state = impl->channel->GetState(true)) {
    const bool refused = state == GRPC_CHANNEL_TRANSIENT_FAILURE || state == GRPC_CHANNEL_SHUTDOWN;
    if (!refused || options.wait_for_server) {
      if (impl->channel->WaitForStateChange(state, deadline)) continue;
    }
    std::string reason = fmt::format("no answer within {} ms", options.connect_timeout.count());
    if (refused) {
      // The channel does not tell its reason; a call on it fails at once with it.
      grpc::ClientContext context;
      context.set_deadline(system_clock::now() + milliseconds(200));
      v1::StatusResponse response;
      const grpc::Status status = impl->admin->Status(&context, v1::StatusRequest(), &response);
      if (status.ok()) break;
      if (status.error_code() == grpc::StatusCode::UNAVAILABLE) reason = status.error_message();
    }
    return Unavailable("cannot connect to {}: {}", address, reason);
  }
  return std::unique_ptr<Client>(new Client(std::move(impl)));
}

std::shared_ptr<GenerateCall> Client::Generate(v1::GenerateRequest request, const CallOptions& options,
                                               std::shared_ptr<GenerateObserver> observer) {
  const absl::Status valid = CheckStrings(request);
  auto call = std::make_shared<StreamCall>(impl_->generation.get(), impl_->calls, std::move(request), options,
                                           std::make_shared<ObserverSink>(observer));
  if (valid.ok()) {
    call->Start();
  } else {
    observer->OnDone(valid);
  }
  return call;
}

std::unique_ptr<GenerateStream> Client::Generate(v1::GenerateRequest request, const CallOptions& options) {
  const absl::Status valid = CheckStrings(request);
  auto queue = std::make_shared<QueueSink>();
  auto call =
      std::make_shared<StreamCall>(impl_->generation.get(), impl_->calls, std::move(request), options, queue);
  if (valid.ok()) {
    call->Start();
  } else {
    queue->OnDone(valid);
  }
  return std::make_unique<PulledStream>(std::move(call), std::move(queue));
}

absl::StatusOr<v1::TokenizeResponse> Client::Tokenize(const v1::TokenizeRequest& request,
                                                      const CallOptions& options) {
  MNEMO_RETURN_IF_ERROR(CheckStrings(request));
  return impl_->Unary<v1::TokenizeResponse>(options, [&](grpc::ClientContext* context, auto* response) {
    return impl_->generation->Tokenize(context, request, response);
  });
}

absl::StatusOr<v1::DetokenizeResponse> Client::Detokenize(const v1::DetokenizeRequest& request,
                                                          const CallOptions& options) {
  return impl_->Unary<v1::DetokenizeResponse>(options, [&](grpc::ClientContext* context, auto* response) {
    return impl_->generation->Detokenize(context, request, response);
  });
}

absl::StatusOr<v1::ListModelsResponse> Client::ListModels(const CallOptions& options) {
  return impl_->Unary<v1::ListModelsResponse>(options, [&](grpc::ClientContext* context, auto* response) {
    return impl_->generation->ListModels(context, {}, response);
  });
}

absl::StatusOr<v1::EndSessionResponse> Client::EndSession(const std::string& session_id,
                                                          const CallOptions& options) {
  MNEMO_RETURN_IF_ERROR(CheckUtf8("session_id", session_id));
  v1::EndSessionRequest request;
  request.set_session_id(session_id);
  return impl_->Unary<v1::EndSessionResponse>(options, [&](grpc::ClientContext* context, auto* response) {
    return impl_->generation->EndSession(context, request, response);
  });
}

absl::StatusOr<v1::StatusResponse> Client::Status(const CallOptions& options) {
  return impl_->Unary<v1::StatusResponse>(options, [&](grpc::ClientContext* context, auto* response) {
    return impl_->admin->Status(context, {}, response);
  });
}

absl::StatusOr<v1::EnergyResponse> Client::Energy(const CallOptions& options) {
  return impl_->Unary<v1::EnergyResponse>(options, [&](grpc::ClientContext* context, auto* response) {
    return impl_->admin->Energy(context, {}, response);
  });
}

absl::StatusOr<v1::DrainResponse> Client::Drain(milliseconds drain_timeout, const CallOptions& options) {
  v1::DrainRequest request;
  *request.mutable_timeout() =
      google::protobuf::util::TimeUtil::MillisecondsToDuration(drain_timeout.count());
  CallOptions call = options;
  call.retry.max_attempts = 1;
  if (!call.timeout.has_value()) call.timeout = drain_timeout + impl_->options.unary_timeout;
  return impl_->Unary<v1::DrainResponse>(call, [&](grpc::ClientContext* context, auto* response) {
    return impl_->admin->Drain(context, request, response);
  });
}

absl::Status Client::Resume(const CallOptions& options) {
  return impl_
      ->Unary<v1::ResumeResponse>(options,
                                  [&](grpc::ClientContext* context, auto* response) {
                                    return impl_->admin->Resume(context, {}, response);
                                  })
      .status();
}

void Completion::Add(v1::GenerateResponse message) {
  switch (message.event_case()) {
    case v1::GenerateResponse::kStarted:
      started = std::move(*message.mutable_started());
      break;
    case v1::GenerateResponse::kPrompt:
      if (prompt_tokens.empty()) prompt_start = message.prompt().start();
      for (v1::Token& token : *message.mutable_prompt()->mutable_tokens())
        prompt_tokens.push_back(std::move(token));
      break;
    case v1::GenerateResponse::kDelta:
      text += message.delta().text();
      for (v1::Token& token : *message.mutable_delta()->mutable_tokens()) tokens.push_back(std::move(token));
      break;
    case v1::GenerateResponse::kFinal:
      final = std::move(*message.mutable_final());
      break;
    case v1::GenerateResponse::EVENT_NOT_SET:
      break;  // an event of a newer server
  }
}

const char* FinishReasonName(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_EOS:
      return "eos";
    case v1::FINISH_REASON_STOP:
      return "stop";
    case v1::FINISH_REASON_LENGTH:
      return "length";
    default:
      return "unspecified";
  }
}

}  // namespace mnemo::client
