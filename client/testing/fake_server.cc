#include "client/testing/fake_server.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "devices/base/status.h"

namespace mnemo::client::testing {

v1::GenerateResponse MakeDelta(int32_t id, const std::string& text) {
  v1::GenerateResponse response;
  response.mutable_delta()->set_text(text);
  v1::Token* token = response.mutable_delta()->add_tokens();
  token->set_id(id);
  token->set_piece(text);
  return response;
}

v1::GenerateResponse MakeFinal(v1::FinishReason reason, int prompt_tokens, int completion_tokens) {
  v1::GenerateResponse response;
  v1::Final* final = response.mutable_final();
  final->set_finish_reason(reason);
  final->mutable_usage()->set_prompt_tokens(prompt_tokens);
  final->mutable_usage()->set_completion_tokens(completion_tokens);
  final->mutable_timing()->mutable_queue()->set_nanos(1'000'000);
  final->mutable_timing()->mutable_prefill()->set_nanos(20'000'000);
  final->mutable_timing()->mutable_decode()->set_nanos(300'000'000);
  final->mutable_timing()->mutable_time_to_first_token()->set_nanos(21'500'000);
  final->mutable_timing()->mutable_total()->set_seconds(1);
  return response;
}

class FakeServer::Generation final : public v1::Generation::Service {
 public:
  explicit Generation(FakeServer* owner) : owner_(owner) {}

  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateResponse>* writer) override {
    ++owner_->calls_;
    {
      std::lock_guard lock(owner_->mutex_);
      owner_->generate_requests_.push_back(*request);
    }
    const auto& handler = owner_->script_.generate;
    const grpc::Status status =
        handler ? handler(context, *request, writer) : owner_->EchoGenerate(context, *request, writer);
    if (context->IsCancelled()) ++owner_->cancelled_;
    return status;
  }

  grpc::Status Tokenize(grpc::ServerContext* context, const v1::TokenizeRequest* request,
                        v1::TokenizeResponse* response) override {
    ++owner_->calls_;
    {
      std::lock_guard lock(owner_->mutex_);
      owner_->tokenize_requests_.push_back(*request);
    }
    if (owner_->script_.tokenize) return owner_->script_.tokenize(context, *request, response);
    for (const char c : request->text()) {
      response->add_ids(static_cast<unsigned char>(c));
      response->add_pieces(std::string(1, c));
    }
    return grpc::Status::OK;
  }

  grpc::Status Detokenize(grpc::ServerContext*, const v1::DetokenizeRequest* request,
                          v1::DetokenizeResponse* response) override {
    ++owner_->calls_;
    for (const int32_t id : request->ids()) response->mutable_text()->push_back(static_cast<char>(id));
    return grpc::Status::OK;
  }

  grpc::Status ListModels(grpc::ServerContext*, const v1::ListModelsRequest*,
                          v1::ListModelsResponse* response) override {
    ++owner_->calls_;
    if (owner_->script_.list_models) return owner_->script_.list_models(response);
    v1::ListModelsResponse::Model* model = response->add_models();
    model->set_name("fake");
    model->set_architecture("llama");
    model->set_parameters(135'000'000);
    model->set_weight_bytes(90'000'000);
    model->set_context_tokens(2048);
    model->set_vocabulary(259);
    model->set_quantization("Q4_1");
    model->set_is_default(true);
    model->set_workers_ready(1);
    model->set_bos_token_id(-1);
    model->add_end_token_ids(257);
    return grpc::Status::OK;
  }

  grpc::Status EndSession(grpc::ServerContext*, const v1::EndSessionRequest* request,
                          v1::EndSessionResponse* response) override {
    ++owner_->calls_;
    std::lock_guard lock(owner_->mutex_);
    owner_->ended_sessions_.push_back(request->session_id());
    response->set_existed(true);
    return grpc::Status::OK;
  }

 private:
  FakeServer* owner_;
};

class FakeServer::Admin final : public v1::Admin::Service {
 public:
  explicit Admin(FakeServer* owner) : owner_(owner) {}

  grpc::Status Status(grpc::ServerContext*, const v1::StatusRequest*, v1::StatusResponse* response) override {
    ++owner_->calls_;
    if (owner_->script_.status) return owner_->script_.status(response);
    response->set_version("0.1.0-fake");
    response->mutable_uptime()->set_seconds(3725);
    response->set_requests_running(2);
    response->set_requests_queued(1);
    response->set_tokens_in_flight(640);
    v1::StatusResponse::Worker* worker = response->add_workers();
    worker->set_name("worker0");
    worker->set_address("unix:/tmp/w0");
    worker->set_state(v1::StatusResponse::STATE_READY);
    worker->set_model("fake");
    worker->set_device("cpu0");
    worker->set_pid(4242);
    worker->set_requests_running(2);
    worker->set_kv_pages_used(10);
    worker->set_kv_pages_total(100);
    worker->set_kv_pages_cached(5);
    return grpc::Status::OK;
  }
  grpc::Status Energy(grpc::ServerContext*, const v1::EnergyRequest*, v1::EnergyResponse* response) override {
    ++owner_->calls_;
    if (owner_->script_.energy) return owner_->script_.energy(response);
    return {grpc::StatusCode::UNIMPLEMENTED, "this machine has neither a meter nor a model of energy"};
  }
  grpc::Status Drain(grpc::ServerContext*, const v1::DrainRequest* request,
                     v1::DrainResponse* response) override {
    ++owner_->calls_;
    ++owner_->drains_;
    if (owner_->script_.drain) return owner_->script_.drain(*request, response);
    response->set_finished(3);
    response->set_cut(1);
    return grpc::Status::OK;
  }
  grpc::Status Resume(grpc::ServerContext*, const v1::ResumeRequest*, v1::ResumeResponse*) override {
    ++owner_->calls_;
    ++owner_->resumes_;
    return grpc::Status::OK;
  }

 private:
  FakeServer* owner_;
};

FakeServer::FakeServer(FakeScript script)
    : script_(std::move(script)),
      generation_(std::make_unique<Generation>(this)),
      admin_(std::make_unique<Admin>(this)) {
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(generation_.get());
  builder.RegisterService(admin_.get());
  builder.SetMaxReceiveMessageSize(64 << 20);
  server_ = builder.BuildAndStart();
  MNEMO_CHECK(server_ != nullptr && port > 0);
  address_ = fmt::format("127.0.0.1:{}", port);
}

FakeServer::~FakeServer() { server_->Shutdown(std::chrono::system_clock::now()); }

std::vector<v1::GenerateRequest> FakeServer::generate_requests() const {
  std::lock_guard lock(mutex_);
  return generate_requests_;
}

std::vector<v1::TokenizeRequest> FakeServer::tokenize_requests() const {
  std::lock_guard lock(mutex_);
  return tokenize_requests_;
}

std::vector<std::string> FakeServer::ended_sessions() const {
  std::lock_guard lock(mutex_);
  return ended_sessions_;
}

// Returns the text of the last user message, prompt or ids, one byte a token, repeated up to max_tokens
// (default: once).
grpc::Status FakeServer::EchoGenerate(grpc::ServerContext* context, const v1::GenerateRequest& request,
                                      FakeScript::Writer* writer) {
  std::string text = request.prompt();
  for (const int32_t id : request.token_ids().ids()) text.push_back(static_cast<char>('a' + id % 26));
  if (request.chat().messages_size() > 0)
    text = request.chat().messages(request.chat().messages_size() - 1).content();
  if (text.empty()) return {grpc::StatusCode::INVALID_ARGUMENT, "prompt: empty; at least 1 token is needed"};

  v1::GenerateResponse started;
  started.mutable_started()->set_request_id(request.request_id().empty() ? "fake-1" : request.request_id());
  started.mutable_started()->set_model("fake");
  started.mutable_started()->set_seed(request.sampling().has_seed() ? request.sampling().seed() : 99);
  started.mutable_started()->set_prompt_token_count(static_cast<int>(text.size()));
  if (!writer->Write(started)) return grpc::Status::CANCELLED;

  const bool limited = request.sampling().has_max_tokens();
  const int count = limited ? request.sampling().max_tokens() : static_cast<int>(text.size());
  std::string character;
  for (int i = 0; i < count; ++i) {
    if (script_.token_gap.count() > 0) std::this_thread::sleep_for(script_.token_gap);
    const char c = text[static_cast<size_t>(i) % text.size()];
    // A character's bytes go out together with its last one.
    character.push_back(c);
    const bool more = (text[static_cast<size_t>(i + 1) % text.size()] & 0xC0) == 0x80;
    v1::GenerateResponse delta =
        MakeDelta(static_cast<unsigned char>(c), more ? "" : std::exchange(character, ""));
    if (context->IsCancelled() || !writer->Write(delta)) {
      return grpc::Status::CANCELLED;
    }
  }
  writer->Write(MakeFinal(limited ? v1::FINISH_REASON_LENGTH : v1::FINISH_REASON_EOS,
                          static_cast<int>(text.size()), count));
  return grpc::Status::OK;
}

}  // namespace mnemo::client::testing
