#include "server/frontend/generation_service.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/support/byte_buffer.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "mnemo/v1/generation.grpc.pb.h"
#include "server/frontend/generate_reactor.h"
#include "server/frontend/out_of_memory.h"
#include "server/frontend/range_check.h"
#include "server/frontend/status_mapping.h"
#include "server/frontend/validate.h"

namespace mnemo::frontend {
namespace {

// Seeds and request ids. Seeded from the system once: a draw must not cost a system call.
class Source {
 public:
  Drawn Draw() {
    std::lock_guard lock(mutex_);
    Drawn drawn;
    drawn.seed = generator_();
    drawn.request_id = fmt::format("req-{:016x}", generator_());
    return drawn;
  }

 private:
  static std::mt19937_64 Seeded() {
    std::random_device device;
    std::seed_seq seeds{device(), device(), device(), device(), device(), device(), device(), device()};
    return std::mt19937_64(seeds);
  }
  std::mutex mutex_;
  std::mt19937_64 generator_ = Seeded();
};

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedOutputStream;

// A TokenizeResponse, written as bytes: in a message each piece would be an object of its own and take ten
// times the memory. `most_bytes` bounds the response, and so the number of ids that are made.
absl::StatusOr<grpc::ByteBuffer> Tokenize(const v1::TokenizeRequest& request, const ServedModel& model,
                                          int64_t most_bytes) {
  using Response = v1::TokenizeResponse;
  constexpr uint32_t kIdsTag =
      WireFormatLite::MakeTag(Response::kIdsFieldNumber, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
  constexpr uint32_t kPiecesTag =
      WireFormatLite::MakeTag(Response::kPiecesFieldNumber, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
  // An id and an empty piece take three bytes.
  MNEMO_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                         EncodeForTokenize(request, model, static_cast<size_t>(most_bytes / 3)));
  size_t id_bytes = 0;
  size_t piece_bytes = 0;
  for (const int32_t id : ids) {
    id_bytes += CodedOutputStream::VarintSize32(static_cast<uint32_t>(id));
    const size_t size = model.Piece(id).size();
    piece_bytes += 1 + CodedOutputStream::VarintSize32(static_cast<uint32_t>(size)) + size;
  }
  const size_t header_bytes =
      ids.empty() ? 0 : 1 + CodedOutputStream::VarintSize32(static_cast<uint32_t>(id_bytes));
  if (static_cast<int64_t>(header_bytes + id_bytes + piece_bytes) > most_bytes) {
    return InvalidArgument(
        "{}: its tokens and their pieces take more than {} bytes, server.max_message_bytes; send it in parts",
        request.has_chat() ? "chat" : "text", most_bytes);
  }
  grpc_slice slice = grpc_slice_malloc(header_bytes + id_bytes + piece_bytes);
  uint8_t* out = GRPC_SLICE_START_PTR(slice);
  if (!ids.empty()) {
    out = CodedOutputStream::WriteTagToArray(kIdsTag, out);
    out = CodedOutputStream::WriteVarint32ToArray(static_cast<uint32_t>(id_bytes), out);
    for (const int32_t id : ids)
      out = CodedOutputStream::WriteVarint32ToArray(static_cast<uint32_t>(id), out);
  }
  for (const int32_t id : ids) {
    const std::string_view piece = model.Piece(id);
    out = CodedOutputStream::WriteTagToArray(kPiecesTag, out);
    out = CodedOutputStream::WriteVarint32ToArray(static_cast<uint32_t>(piece.size()), out);
    out = std::copy(piece.begin(), piece.end(), out);
  }
  const grpc::Slice owned(slice, grpc::Slice::STEAL_REF);
  return grpc::ByteBuffer(&owned, 1);
}

// A token's text may have many times the bytes of its id. So the text is bounded like a message.
absl::Status Detokenize(const v1::DetokenizeRequest& request, const ServedModel& model, int64_t max_bytes,
                        v1::DetokenizeResponse* response) {
  MNEMO_RETURN_IF_ERROR(CheckModelName(request.model(), model));
  const int32_t count = model.tokenizer->size();
  int64_t bytes = 0;
  for (int i = 0; i < request.ids_size(); ++i) {
    MNEMO_RETURN_IF_ERROR(CheckId("ids", i, request.ids(i), count));
    bytes += static_cast<int64_t>(model.tokenizer->Piece(request.ids(i)).size());
    if (bytes > max_bytes) {
      return InvalidArgument("ids: the text of the first {} has more than {} bytes, server.max_message_bytes",
                             i + 1, max_bytes);
    }
  }
  const std::span<const int32_t> ids(request.ids().data(), static_cast<size_t>(request.ids_size()));
  response->set_text(model.tokenizer->Decode(ids, request.skip_special_tokens()));
  return absl::OkStatus();
}

class GenerationService final
    : public v1::Generation::WithRawCallbackMethod_Tokenize<v1::Generation::CallbackService> {
 public:
  explicit GenerationService(ServiceContext* context) : context_(context) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext* call,
                                                           const v1::GenerateRequest* request) override {
    return StartGenerate(context_, call, request, source_.Draw());
  }

  using WithRawCallbackMethod_Tokenize::Tokenize;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* call, const grpc::ByteBuffer* bytes,
                                     grpc::ByteBuffer* response) override {
    const auto request = std::make_shared<v1::TokenizeRequest>();
    grpc::ByteBuffer taken(*bytes);
    if (const grpc::Status parsed =
            grpc::SerializationTraits<v1::TokenizeRequest>::Deserialize(&taken, request.get());
        !parsed.ok()) {
      // As gRPC answers for the other calls.
      grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
      reactor->Finish(grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "not a valid TokenizeRequest"));
      return reactor;
    }
    const size_t size = request->has_chat() ? TextBytes(request->chat()) : request->text().size();
    return RunSized(
        call, size, request->has_chat(), [request, response, context = context_]() -> absl::Status {
          MNEMO_ASSIGN_OR_RETURN(*response,
                                 frontend::Tokenize(*request, *context->model, context->max_message_bytes));
          return absl::OkStatus();
        });
  }

  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* call,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override {
    return RunSized(
        call, static_cast<size_t>(request->ids_size()), false, [request, response, context = context_] {
          return frontend::Detokenize(*request, *context->model, context->max_message_bytes, response);
        });
  }

  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* call, const v1::ListModelsRequest*,
                                       v1::ListModelsResponse* response) override {
    FillModel(response->add_models());
    grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  grpc::ServerUnaryReactor* EndSession(grpc::CallbackServerContext* call,
                                       const v1::EndSessionRequest* request,
                                       v1::EndSessionResponse* response) override {
    grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
    const absl::Status status = CheckSessionId(request->session_id());
    if (status.ok()) response->set_existed(context_->dispatcher->EndSession(request->session_id()));
    reactor->Finish(ToGrpcStatus(status));
    return reactor;
  }

 private:
  // `size`: the bytes or tokens of the work; `waits`: the work waits for another process. The default
  // reactor, request and response live until Finish, also when the client leaves.
  template <typename Work>
  grpc::ServerUnaryReactor* RunSized(grpc::CallbackServerContext* call, size_t size, bool waits, Work work) {
    grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
    const bool is_long = size > TextPool::kLongTextBytes;
    TextPool* const pool = is_long ? context_->text_pool : context_->chat_pool;
    if (!is_long && !waits) {
      reactor->Finish(ToGrpcStatus(FailWithoutMemory(work)));
    } else if (!pool->Run([reactor, work] { reactor->Finish(ToGrpcStatus(FailWithoutMemory(work))); })) {
      AddPushback(call, context_->tunables->retry_pushback_ms.load());
      reactor->Finish(ToGrpcStatus(
          is_long
              ? ResourceExhausted("queue full: {} long texts wait to be tokenized", TextPool::kMaxQueued)
              : ResourceExhausted("queue full: {} chats wait to be rendered", TextPool::kMaxQueuedChats)));
    }
    return reactor;
  }

  void FillModel(v1::ListModelsResponse::Model* out) const {
    const ServedModel& model = *context_->model;
    out->set_name(model.name);
    out->set_architecture(model.config.architecture);
    out->set_parameters(model.config.parameters);
    out->set_weight_bytes(model.config.weight_bytes);
    out->set_vocabulary(model.vocabulary());
    out->set_quantization(model.config.quantization);
    out->set_is_default(true);
    out->set_bos_token_id(model.tokenizer->bos_id());
    out->mutable_end_token_ids()->Add(model.end_ids.begin(), model.end_ids.end());
    int ready = 0;
    // The longest context of the ready workers; workers that others run may have less than the model.
    int longest = 0;
    std::set<int32_t> methods = {v1::ATTENTION_METHOD_DENSE};
    for (const dispatch::WorkerSnapshot& worker : context_->dispatcher->Workers()) {
      if (worker.state != dispatch::WorkerSnapshot::State::kReady) continue;
      longest = std::max(longest, worker.ready.context_tokens());
      if (ready++ == 0) out->set_numerics_id(worker.ready.numerics_id());
      methods.insert(worker.ready.attention_methods().begin(), worker.ready.attention_methods().end());
    }
    out->set_workers_ready(ready);
    out->set_context_tokens(longest > 0 ? std::min(longest, model.context_tokens) : model.context_tokens);
    for (const int32_t method : methods) out->add_attention_methods(static_cast<v1::AttentionMethod>(method));
    for (std::string& feature : Features(model, methods.size() > 1)) out->add_features(std::move(feature));
  }

  ServiceContext* const context_;
  Source source_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeGenerationService(ServiceContext* context) {
  return std::make_unique<GenerationService>(context);
}

}  // namespace mnemo::frontend
