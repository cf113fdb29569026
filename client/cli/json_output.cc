#include "client/cli/json_output.h"

#include <nlohmann/json.hpp>

namespace mnemo::cli {
namespace {

using Json = nlohmann::ordered_json;

// Pieces may be part of a character: replaced by U+FFFD in "piece", exact in "bytes".
std::string Dump(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

Json Bytes(const std::string& piece) {
  Json bytes = Json::array();
  for (const char c : piece) bytes.push_back(static_cast<unsigned char>(c));
  return bytes;
}

Json TokenJson(const v1::Token& token) {
  Json json = {{"id", token.id()}, {"piece", token.piece()}, {"bytes", Bytes(token.piece())}};
  json["logprob"] = token.has_logprob() ? Json(token.logprob()) : Json(nullptr);
  json["rank"] = token.has_rank() ? Json(token.rank()) : Json(nullptr);
  Json alternatives = Json::array();
  for (const v1::Token::Alternative& other : token.alternatives()) {
    alternatives.push_back({{"id", other.id()},
                            {"piece", other.piece()},
                            {"bytes", Bytes(other.piece())},
                            {"logprob", other.logprob()}});
  }
  json["alternatives"] = std::move(alternatives);
  return json;
}

Json TokensJson(const std::vector<v1::Token>& tokens) {
  Json json = Json::array();
  for (const v1::Token& token : tokens) json.push_back(TokenJson(token));
  return json;
}

const char* StepName(v1::MemoryStep::Step step) {
  switch (step) {
    case v1::MemoryStep::STEP_PREPARE:
      return "prepare";
    case v1::MemoryStep::STEP_RELEVANCY:
      return "relevancy";
    case v1::MemoryStep::STEP_RETRIEVAL:
      return "retrieval";
    case v1::MemoryStep::STEP_APPLY:
      return "apply";
    default:
      return "unspecified";
  }
}

Json EnergyJson(const v1::Energy& energy) {
  Json devices = Json::array();
  for (const v1::Energy::Device& device : energy.devices()) {
    devices.push_back(
        {{"device", device.device()}, {"joules", device.joules()}, {"source", device.source()}});
  }
  return {{"joules", energy.joules()}, {"devices", std::move(devices)}};
}

void AddFinal(const v1::Final& final, Json* json) {
  (*json)["finish_reason"] = client::FinishReasonName(final.finish_reason());
  (*json)["stop_matched"] = final.stop_matched();
  (*json)["usage"] = {{"prompt_tokens", final.usage().prompt_tokens()},
                      {"cached_prompt_tokens", final.usage().cached_prompt_tokens()},
                      {"completion_tokens", final.usage().completion_tokens()}};
  const v1::Timing& timing = final.timing();
  (*json)["timing"] = {{"queue_seconds", Seconds(timing.queue())},
                       {"prefill_seconds", Seconds(timing.prefill())},
                       {"decode_seconds", Seconds(timing.decode())},
                       {"time_to_first_token_seconds", Seconds(timing.time_to_first_token())},
                       {"total_seconds", Seconds(timing.total())}};
  (*json)["replays"] = final.replays();
  if (final.has_energy()) (*json)["energy"] = EnergyJson(final.energy());
  for (const v1::MemoryStep& step : final.memory_steps()) {
    (*json)["memory_steps"].push_back({{"step", StepName(step.step())},
                                       {"method", step.method()},
                                       {"device", step.device()},
                                       {"time_seconds", Seconds(step.time())},
                                       {"bytes_moved", step.bytes_moved()},
                                       {"count", step.count()},
                                       {"round_trips", step.round_trips()}});
    if (final.has_energy()) (*json)["memory_steps"].back()["joules"] = step.joules();
  }
  for (const v1::Source& source : final.sources()) {
    (*json)["sources"].push_back({{"document_id", source.document_id()},
                                  {"title", source.title()},
                                  {"score", source.score()},
                                  {"text", source.text()}});
  }
}

}  // namespace

double Seconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + static_cast<double>(duration.nanos()) * 1e-9;
}

const char* StateName(v1::StatusResponse::State state) {
  switch (state) {
    case v1::StatusResponse::STATE_STARTING:
      return "starting";
    case v1::StatusResponse::STATE_READY:
      return "ready";
    case v1::StatusResponse::STATE_DRAINING:
      return "draining";
    case v1::StatusResponse::STATE_DOWN:
      return "down";
    default:
      return "unspecified";
  }
}

std::string CompletionJson(const client::Completion& completion, const CompletionJsonOptions& options) {
  Json ids = Json::array();
  for (const v1::Token& token : completion.tokens) ids.push_back(token.id());
  Json json = {{"text", completion.text}, {"token_ids", std::move(ids)}};
  if (completion.final.has_value()) AddFinal(*completion.final, &json);
  json["request_id"] = completion.started.request_id();
  json["model"] = completion.started.model();
  json["seed"] = completion.started.seed();
  if (options.logprobs) json["logprobs"] = TokensJson(completion.tokens);
  if (options.prompt_logprobs) {
    json["prompt_logprobs"] = {{"start", completion.prompt_start},
                               {"tokens", TokensJson(completion.prompt_tokens)}};
  }
  return Dump(json, options.indent);
}

std::string ModelsJson(const v1::ListModelsResponse& models) {
  Json list = Json::array();
  for (const v1::ListModelsResponse::Model& model : models.models()) {
    Json ends = Json::array();
    for (const int32_t id : model.end_token_ids()) ends.push_back(id);
    Json features = Json::array();
    for (const std::string& feature : model.features()) features.push_back(feature);
    Json methods = Json::array();
    for (const int method : model.attention_methods()) {
      methods.push_back(v1::AttentionMethod_Name(static_cast<v1::AttentionMethod>(method)));
    }
    list.push_back({{"name", model.name()},
                    {"architecture", model.architecture()},
                    {"parameters", model.parameters()},
                    {"weight_bytes", model.weight_bytes()},
                    {"context_tokens", model.context_tokens()},
                    {"vocabulary", model.vocabulary()},
                    {"quantization", model.quantization()},
                    {"attention_methods", std::move(methods)},
                    {"is_default", model.is_default()},
                    {"workers_ready", model.workers_ready()},
                    {"bos_token_id", model.bos_token_id()},
                    {"end_token_ids", std::move(ends)},
                    {"features", std::move(features)},
                    {"numerics_id", model.numerics_id()}});
  }
  return Dump({{"models", std::move(list)}}, -1);
}

std::string StatusJson(const v1::StatusResponse& status) {
  Json workers = Json::array();
  for (const v1::StatusResponse::Worker& worker : status.workers()) {
    workers.push_back({{"name", worker.name()},
                       {"address", worker.address()},
                       {"state", StateName(worker.state())},
                       {"model", worker.model()},
                       {"device", worker.device()},
                       {"pid", worker.pid()},
                       {"restarts", worker.restarts()},
                       {"requests_running", worker.requests_running()},
                       {"kv_pages_used", worker.kv_pages_used()},
                       {"kv_pages_cached", worker.kv_pages_cached()},
                       {"kv_pages_total", worker.kv_pages_total()},
                       {"detail", worker.detail()}});
  }
  Json services = Json::array();
  for (const v1::StatusResponse::MemoryService& service : status.memory_services()) {
    services.push_back({{"name", service.name()},
                        {"address", service.address()},
                        {"state", StateName(service.state())},
                        {"device", service.device()},
                        {"simulated_time", service.simulated_time()},
                        {"pid", service.pid()},
                        {"restarts", service.restarts()},
                        {"bytes_used", service.bytes_used()},
                        {"bytes_total", service.bytes_total()},
                        {"indexes", service.indexes()},
                        {"detail", service.detail()}});
  }
  return Dump({{"version", status.version()},
               {"uptime_seconds", Seconds(status.uptime())},
               {"draining", status.draining()},
               {"requests_running", status.requests_running()},
               {"requests_queued", status.requests_queued()},
               {"tokens_in_flight", status.tokens_in_flight()},
               {"workers", std::move(workers)},
               {"memory_services", std::move(services)}},
              -1);
}

std::string EnergyJson(const v1::EnergyResponse& energy) {
  Json devices = Json::array();
  for (const v1::EnergyResponse::Device& device : energy.devices()) {
    devices.push_back({{"device", device.device()},
                       {"source", device.source()},
                       {"meter_up", device.meter_up()},
                       {"joules", device.joules()},
                       {"watts", device.watts()},
                       {"idle_watts", device.idle_watts()},
                       {"idle_watts_measured", device.idle_watts_measured()},
                       {"request_joules", device.request_joules()},
                       {"overhead_joules", device.overhead_joules()},
                       {"idle_joules", device.idle_joules()},
                       {"other_joules", device.other_joules()}});
  }
  Json steps = Json::array();
  for (const v1::EnergyResponse::Step& step : energy.steps()) {
    steps.push_back({{"device", step.device()},
                     {"method", step.method()},
                     {"step", step.step()},
                     {"joules", step.joules()}});
  }
  Json requests = Json::array();
  for (const v1::EnergyResponse::Request& request : energy.requests()) {
    requests.push_back({{"request_id", request.request_id()},
                        {"joules", request.joules()},
                        {"completion_tokens", request.completion_tokens()},
                        {"age_seconds", Seconds(request.age())}});
  }
  return Dump(
      {{"devices", std::move(devices)}, {"steps", std::move(steps)}, {"requests", std::move(requests)}}, -1);
}

}  // namespace mnemo::cli
