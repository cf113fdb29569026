#include "client/bench/profile.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <condition_variable>
#include <fstream>
#include <memory>
#include <mutex>

#include "client/bench/workload.h"
#include "client/cli/commands.h"
#include "client/cli/common.h"
#include "client/cli/model_choice.h"
#include "client/cli/request_options.h"
#include "server/memory/methods/method.h"

namespace mnemo::cli {
namespace {

constexpr char kFooter[] =
    "For each method, placement, context and batch, the batch's requests run at the same time, twice: first "
    "for two tokens, so that\n"
    "their prompts are cached, then for --tokens. Of the second run, as the daemon reports it:\n"
    "  MS/TOKEN = decode time / (tokens - 1), mean of the requests\n"
    "  a step's share = its time, summed over the requests / the wall time of the batch's decoding, first "
    "token to last\n"
    "  MEMORY = the four steps together; BYTES/TOKEN = what they moved / tokens decoded\n"
    "  TRIPS/TOKEN = submissions to the memory service that were waited for / tokens decoded: one a layer; "
    "requests "
    "of a batch share it\n"
    "So the requests of a batch, whose steps run side by side within one step of the engine, have one wall "
    "time between them. Where\n"
    "their steps ran at the same time on several threads and took longer than it, shares are of the steps' "
    "sum and never pass 100 %;\n"
    "such a row is marked *. Of `prepare`, which indexes the prompts' keys too, the tokens decoded count "
    "with "
    "their part of all tokens.\n"
    "Dense attention has no steps: '-'. What cannot run is told and left out; exit status 1 when nothing "
    "could. docs/BENCHMARK.md says\n"
    "more.";

// Dense attention, and every method that runs, in the order of the list of methods.
std::vector<std::string> DefaultMethods() {
  std::vector<std::string> names = {"dense"};
  for (const memory::methods::Method* method : memory::methods::Methods()) {
    if (method->weights.empty()) names.emplace_back(method->name);
  }
  return names;
}

struct ProfileOptions {
  ServerOptions server;
  RequestOptions request;
  std::vector<int64_t> contexts = {1024, 4096, 8000};
  std::vector<int> batches = {1, 4};
  std::vector<std::string> methods = DefaultMethods();
  std::vector<std::string> placements = {"inline", "memory-service"};
  int budget = 1024;
  int tokens = 64;
  uint64_t seed = 1;
  bool json = false;
  std::string svg;
};

// Requests that run at the same time; it lives until all have ended.
class Batch {
 public:
  explicit Batch(int size) : running_(size), samples_(static_cast<size_t>(size)) {}

  // Observer of request `index`; the batch outlives it.
  std::shared_ptr<client::GenerateObserver> Observe(size_t index) {
    samples_[index].sent = std::chrono::duration<double>(Clock::now() - begin_).count();
    return std::make_shared<Observer>(this, index);
  }

  // The first failure, if any.
  absl::Status Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return running_ == 0; });
    return status_;
  }

  // After Wait.
  const std::vector<bench::ProfileSample>& samples() const { return samples_; }

 private:
  using Clock = std::chrono::steady_clock;

  class Observer final : public client::GenerateObserver {
   public:
    Observer(Batch* batch, size_t index) : batch_(batch), index_(index) {}
    void OnMessage(v1::GenerateResponse message) override {
      if (message.has_final()) batch_->samples_[index_].final = std::move(*message.mutable_final());
    }
    void OnDone(const absl::Status& status) override {
      std::lock_guard lock(batch_->mutex_);
      if (batch_->status_.ok()) batch_->status_ = status;
      --batch_->running_;
      batch_->changed_.notify_all();
    }

   private:
    Batch* batch_;
    size_t index_;
  };

  const Clock::time_point begin_ = Clock::now();
  std::mutex mutex_;  // guards all members below but the samples: each belongs to its request
  std::condition_variable changed_;
  int running_;
  absl::Status status_;
  std::vector<bench::ProfileSample> samples_;
};

// The batch that Ctrl-C cancels.
class RunningCalls {
 public:
  void Add(std::shared_ptr<client::GenerateCall> call) {
    std::lock_guard lock(mutex_);
    if (stopped_) call->Cancel();
    calls_.push_back(std::move(call));
  }
  void Clear() {
    std::lock_guard lock(mutex_);
    calls_.clear();
  }
  void Stop() {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    for (const auto& call : calls_) call->Cancel();
  }
  bool stopped() {
    std::lock_guard lock(mutex_);
    return stopped_;
  }

 private:
  std::mutex mutex_;
  std::vector<std::shared_ptr<client::GenerateCall>> calls_;
  bool stopped_ = false;
};

std::vector<bench::ProfileCase> Cases(const ProfileOptions& options) {
  std::vector<bench::ProfileCase> cases;
  for (const int64_t context : options.contexts) {
    for (const int batch : options.batches) {
      for (const std::string& method : options.methods) {
        if (method == "dense") {
          cases.push_back({method, "", context, batch});
          continue;
        }
        for (const std::string& placement : options.placements) {
          cases.push_back({method, placement, context, batch});
        }
      }
    }
  }
  return cases;
}

class Profiler {
 public:
  Profiler(const ProfileOptions& options, client::Client* client, bench::PromptMaker prompts)
      : options_(options), client_(client), prompts_(std::move(prompts)) {}

  absl::StatusOr<bench::ProfileRow> Measure(const bench::ProfileCase& of) {
    // The prompts go into the prefix cache, so that the batch's requests begin to decode close together.
    MNEMO_RETURN_IF_ERROR(Run(of, 2).status());
    MNEMO_ASSIGN_OR_RETURN(const std::vector<bench::ProfileSample> samples, Run(of, options_.tokens));
    return bench::MakeProfileRow(of, samples);
  }

  void Stop() { calls_.Stop(); }

 private:
  absl::StatusOr<std::vector<bench::ProfileSample>> Run(const bench::ProfileCase& of, int tokens) {
    RequestOptions request_options = options_.request;
    request_options.max_tokens = tokens;
    if (!request_options.temperature) request_options.temperature = 0;
    request_options.seed = options_.seed;
    request_options.ignore_eos = true;
    request_options.attention = of.method;
    if (!of.placement.empty()) {
      if (!request_options.threshold) request_options.token_budget = options_.budget;
      request_options.placement = of.placement;
    }
    client::CallOptions call_options;
    v1::GenerateRequest request;
    MNEMO_RETURN_IF_ERROR(ApplyRequestOptions(request_options, &request, &call_options));
    if (of.placement.empty()) {
      // Figures of a selection do not concern dense attention.
      request.clear_attention();
      request.mutable_attention()->set_method(v1::ATTENTION_METHOD_DENSE);
    }
    call_options.retry.max_attempts = 1;  // a second attempt would be timed from the first
    std::vector<v1::GenerateRequest> requests(static_cast<size_t>(of.batch), request);
    for (size_t i = 0; i < requests.size(); ++i) {
      // Made before any is sent. A longer context begins with the shorter one, which is then cached.
      const std::vector<int32_t> ids = prompts_.Random(static_cast<int64_t>(i), of.context_tokens, 0);
      requests[i].mutable_token_ids()->mutable_ids()->Add(ids.begin(), ids.end());
      // The requests of a batch are different ones.
      if (!request.session_id().empty())
        requests[i].set_session_id(fmt::format("{}-{}", request.session_id(), i));
      if (!request.request_id().empty())
        requests[i].set_request_id(fmt::format("{}-{}", request.request_id(), i));
    }
    Batch batch(of.batch);
    for (size_t i = 0; i < requests.size(); ++i) {
      calls_.Add(client_->Generate(std::move(requests[i]), call_options, batch.Observe(i)));
    }
    const absl::Status status = batch.Wait();
    calls_.Clear();
    if (calls_.stopped()) return absl::CancelledError("interrupted");
    if (!status.ok()) return status;
    return batch.samples();
  }

  const ProfileOptions& options_;
  client::Client* client_;
  bench::PromptMaker prompts_;
  RunningCalls calls_;
};

std::string StepCell(const bench::StepFigure& step) {
  if (step.device.empty()) return "-";
  return fmt::format("{:.1f} % {}", step.share * 100, step.device);
}

std::string ProfileTable(const bench::Profile& profile) {
  std::vector<std::vector<std::string>> rows = {{"METHOD", "PLACEMENT", "CONTEXT", "BATCH", "MS/TOKEN",
                                                 "MEMORY", "PREPARE", "RELEVANCY", "RETRIEVAL", "APPLY",
                                                 "BYTES/TOKEN", "TRIPS/TOKEN"}};
  for (const bench::ProfileRow& row : profile.rows) {
    std::vector<std::string> cells = {row.of.method, row.of.placement.empty() ? "-" : row.of.placement,
                                      fmt::format("{}", row.of.context_tokens),
                                      fmt::format("{}", row.of.batch),
                                      fmt::format("{:.3f}", row.decode_seconds_per_token * 1e3)};
    if (row.steps) {
      cells.push_back(fmt::format("{:.1f} %{}", row.memory_share * 100, row.overlapped ? " *" : ""));
      for (const bench::StepFigure& step : *row.steps) cells.push_back(StepCell(step));
      cells.push_back(FormatBytes(row.bytes_per_token));
      cells.push_back(fmt::format("{:.1f}", row.round_trips_per_token));
    } else {
      cells.resize(rows[0].size(), "-");
    }
    rows.push_back(std::move(cells));
  }
  return FormatTable(rows);
}

void Skip(const bench::ProfileCase& of, const std::string& reason, bench::Profile* profile) {
  std::fputs(fmt::format("mnemo: left out {}: {}\n", bench::CaseName(of), reason).c_str(), stderr);
  profile->skipped.push_back({of, reason});
}

// False when interrupted.
bool MeasureAll(const ProfileOptions& options, client::Client* client,
                const v1::ListModelsResponse::Model& model, bench::PromptMaker prompts,
                bench::Profile* profile) {
  Profiler profiler(options, client, std::move(prompts));
  InterruptGuard interrupt([&] { profiler.Stop(); });
  const bool show = IsTerminal(STDERR_FILENO);
  const std::vector<bench::ProfileCase> cases = Cases(options);
  for (size_t i = 0; i < cases.size() && !interrupt.interrupted(); ++i) {
    const bench::ProfileCase& of = cases[i];
    if (of.context_tokens + options.tokens > model.context_tokens()) {
      Skip(of,
           fmt::format("--contexts: {} and {} tokens to generate exceed the model's context of {} tokens",
                       of.context_tokens, options.tokens, model.context_tokens()),
           profile);
      continue;
    }
    if (show) {
      std::fputs(fmt::format("\r\x1b[K{} of {}: {}", i + 1, cases.size(), bench::CaseName(of)).c_str(),
                 stderr);
    }
    absl::StatusOr<bench::ProfileRow> row = profiler.Measure(of);
    if (show) std::fputs("\r\x1b[K", stderr);
    if (row.ok()) {
      profile->rows.push_back(*std::move(row));
    } else if (!interrupt.interrupted()) {
      Skip(of,
           fmt::format("{}: {}", absl::StatusCodeToString(row.status().code()),
                       std::string(row.status().message())),
           profile);
    }
  }
  return !interrupt.interrupted();
}

int RunProfile(const ProfileOptions& options) {
  v1::GenerateRequest unused;
  client::CallOptions call;
  if (const absl::Status status = ApplyRequestOptions(options.request, &unused, &call); !status.ok()) {
    return FailUsage(std::string(status.message()));
  }
  std::ofstream svg;
  if (!options.svg.empty()) {
    svg.open(options.svg, std::ios::binary);  // before minutes are spent on measuring
    if (!svg) return FailUsage(fmt::format("--svg: cannot write {}", options.svg));
  }
  std::unique_ptr<client::Client> client;
  if (const int code = Connect(options.server, &client); code != kExitOk) return code;
  const absl::StatusOr<v1::ListModelsResponse::Model> model = FindModel(client.get(), options.request.model);
  if (!model.ok()) return Fail(model.status());
  absl::StatusOr<std::vector<int32_t>> ids = OrdinaryIds(client.get(), *model);
  if (!ids.ok()) return Fail(ids.status());

  bench::Profile profile;
  profile.address = options.server.address;
  profile.model = model->name();
  profile.seed = options.seed;
  profile.token_budget = options.budget;
  profile.output_tokens = options.tokens;
  profile.options = GivenOptions(options.request);
  const bool whole =
      MeasureAll(options, client.get(), *model, bench::PromptMaker(*std::move(ids), options.seed), &profile);
  if (svg.is_open()) {
    svg << bench::ProfileSvg(profile);
    svg.close();
    if (!svg) return Fail(Internal("--svg: cannot write {}", options.svg));
  }
  if (!WriteOut(options.json ? bench::ProfileJson(profile) + "\n" : ProfileTable(profile))) {
    return kExitBrokenPipe;
  }
  if (!whole) return kExitInterrupted;
  return profile.rows.empty() ? kExitFailed : kExitOk;
}

// A list separated by commas, given once.
template <typename T>
CLI::Option* AddList(CLI::App* command, const std::string& name, std::vector<T>* values,
                     const std::string& text, const CLI::Validator& check) {
  return command->add_option(name, *values, text)
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(check)
      ->capture_default_str()
      ->type_name("LIST");
}

void AddProfileRequestOptions(CLI::App* command, RequestOptions* options) {
  constexpr char kIds[] = "prompts are token ids, of the lengths of --contexts";
  constexpr char kLength[] = "every request generates exactly --tokens";
  using Kind = Variation::Kind;
  std::vector<Variation> variations = {
      {"--max-tokens", Kind::kRefuse, kLength},
      {"--stop", Kind::kRefuse, kLength},
      {"--stop-token-id", Kind::kRefuse, kLength},
      {"--ignore-eos", Kind::kText, "As it is always"},
      {"--seed", Kind::kOwn, ""},
      {"--budget", Kind::kOwn, ""},
      {"--attention", Kind::kRefuse, "--methods lists those that are compared"},
      {"--placement", Kind::kRefuse, "--placements lists those that are compared"},
      {"--retry-overload", Kind::kRefuse, "a second attempt would be timed from the first"},
      {"--temperature", Kind::kText, "[0, 5]; default 0 = greedy"},
      {"--session", Kind::kText, "What the sessions of a batch's requests begin with: ID-0, ID-1, ..."},
      {"--request-id", Kind::kText, "What the names of a batch's requests begin with: ID-0, ID-1, ..."}};
  for (const char* name : {"prompt", "--file", "--token-ids", "--parse-special", "--add-special",
                           "--no-add-special", "--chat", "--system", "--messages", "--tools",
                           "--template-arg", "--omit-generation-prompt", "--continue-final-message"}) {
    variations.push_back({name, Kind::kRefuse, kIds});
  }
  AddRequestOptions(command, options, variations);
}

}  // namespace

RunCommand AddProfile(CLI::App* command) {
  auto options = std::make_shared<ProfileOptions>();
  AddServerOptions(command, &options->server);
  AddList(command, "--contexts", &options->contexts,
          "Prompt lengths in tokens, 1 to 1073741824 each; one that leaves no room for --tokens is left out",
          CLI::Range(int64_t{1}, int64_t{1} << 30));
  AddList(command, "--batches", &options->batches, "Requests at the same time, 1 to 256 each",
          CLI::Range(1, 256));
  AddList(command, "--methods", &options->methods, "Of " + fmt::format("{}", fmt::join(MethodNames(), ", ")),
          CLI::IsMember(MethodNames()));
  AddList(command, "--placements", &options->placements,
          "Of inline, memory-service: where relevancy and retrieval run",
          CLI::IsMember({"inline", "memory-service"}));
  command
      ->add_option("--budget", options->budget,
                   "Tokens attended to in a step, 1 to 1073741824; not with dense")
      ->check(CLI::Range(1, 1 << 30))
      ->capture_default_str();
  command->add_option("--tokens", options->tokens, "Tokens to generate for each request, 2 to 65536")
      ->check(CLI::Range(2, 65536))
      ->capture_default_str();
  command->add_option("--seed", options->seed, "Of the prompts and of sampling")
      ->check(CheckSeed)
      ->capture_default_str();
  command->add_flag("--json", options->json, "Print one JSON object instead of the table; times in seconds");
  command->add_option("--svg", options->svg, "Write a chart too: a stacked bar for each row")
      ->type_name("FILE");
  AddProfileRequestOptions(command, &options->request);
  command->footer(kFooter);
  return [options] { return RunProfile(*options); };
}

}  // namespace mnemo::cli
