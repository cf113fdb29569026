#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <fstream>
#include <memory>
#include <mutex>

#include "client/bench/load.h"
#include "client/bench/report.h"
#include "client/bench/workload.h"
#include "client/cli/commands.h"
#include "client/cli/common.h"
#include "client/cli/model_choice.h"
#include "client/cli/request_options.h"

namespace mnemo::cli {
namespace {

constexpr char kFooter[] =
    "Times are taken when a message is received. For a request whose arrival was due at d, with n output "
    "tokens, first and last\n"
    "received at f and l, and whose stream ended at e:\n"
    "  TTFT = f - d          TPOT = (l - f) / (n - 1), n >= 2          end to end = e - d\n"
    "  ITL  = each gap between successive messages that carry tokens, all requests pooled\n"
    "  p50, p90, p99 = percentiles, linear between ranks; throughput = sums over succeeded requests / (last "
    "e - first d)\n"
    "  goodput = requests that succeeded within every --slo / (last e - first d); itl there means a "
    "request's longest gap\n"
    "In an open loop d is the arrival time, so that waiting caused by the load generator counts; `lag` tells "
    "how much that was. In a\n"
    "closed loop d is when a slot came free. docs/BENCHMARK.md says more. Exit status 1 when no request "
    "succeeded.";

struct BenchOptions {
  ServerOptions server;
  RequestOptions request;
  int concurrency = 0;
  double rate = 0;
  std::string trace;
  double trace_speed = 1;
  std::string prompts;
  std::string input_tokens = "128";
  std::string output_tokens = "64";
  int64_t shared_prefix = 0;
  int64_t clip_input = 0;
  int64_t clip_output = 0;
  int64_t num_requests = 0;
  std::string duration;
  int64_t warmup = 0;
  int max_in_flight = 1024;
  int connections = 1;
  std::string timeout;
  int sessions = 0;
  bool honour_eos = false;
  uint64_t seed = 1;
  std::string slo;
  bool json = false;
  std::string save;
  bool no_progress = false;
};

// The checked plan that the options give.
struct Plan {
  bench::LengthRange input, output;
  std::vector<bench::TraceEntry> trace;
  std::vector<bench::TextPrompt> prompts;
  bench::Slo slo;
  bench::LoadOptions load;
  bench::RunDescription description;
  int64_t clipped = 0;
  v1::GenerateRequest request;  // the common part of all requests
  bool is_chat = false;         // text prompts are users' messages after those of `request`
};

absl::Status ReadTrace(const BenchOptions& options, Plan* plan) {
  MNEMO_ASSIGN_OR_RETURN(const std::string text, ReadFile(options.trace));
  MNEMO_ASSIGN_OR_RETURN(plan->trace, bench::ParseTrace(text, options.trace));
  for (bench::TraceEntry& entry : plan->trace) {
    const bool long_input = options.clip_input > 0 && entry.input_tokens > options.clip_input;
    const bool long_output = options.clip_output > 0 && entry.output_tokens > options.clip_output;
    if (long_input) entry.input_tokens = options.clip_input;
    if (long_output) entry.output_tokens = options.clip_output;
    if (long_input || long_output) ++plan->clipped;
    entry.arrival /= options.trace_speed;
  }
  return absl::OkStatus();
}

absl::Status PlanLoad(const BenchOptions& options, Plan* plan) {
  bench::LoadOptions& load = plan->load;
  const bool open = options.rate > 0 || (!options.trace.empty() && options.concurrency == 0);
  load.concurrency = open ? 0 : std::max(1, options.concurrency);
  load.max_in_flight = options.max_in_flight;
  load.num_requests = options.num_requests;
  if (!options.duration.empty()) {
    const absl::StatusOr<std::chrono::nanoseconds> duration = ParseDuration(options.duration);
    if (!duration.ok()) return Annotate(duration.status(), "--duration");
    load.duration_seconds = std::chrono::duration<double>(*duration).count();
  }
  if (!options.timeout.empty()) {
    const absl::StatusOr<std::chrono::nanoseconds> timeout = ParseDuration(options.timeout);
    if (!timeout.ok()) return Annotate(timeout.status(), "--timeout");
    load.request_timeout_seconds = std::chrono::duration<double>(*timeout).count();
  }
  if (!plan->trace.empty()) {
    const auto size = static_cast<int64_t>(plan->trace.size());
    load.num_requests = load.num_requests > 0 ? std::min(load.num_requests, size) : size;
  } else if (load.num_requests == 0 && !load.duration_seconds) {
    load.num_requests = 100;
  }
  bench::RunDescription& description = plan->description;
  if (!open) {
    description.load = fmt::format("closed loop, {} in flight", load.concurrency);
  } else if (options.rate > 0) {
    description.load = fmt::format("open loop, {:.2f} requests/s (Poisson)", options.rate);
  } else {
    description.load = fmt::format("open loop, arrivals of the trace x {:.2f}", options.trace_speed);
  }
  return absl::OkStatus();
}

absl::Status PlanRequest(const BenchOptions& options, Plan* plan) {
  client::CallOptions unused;
  MNEMO_RETURN_IF_ERROR(ApplyRequestOptions(options.request, &plan->request, &unused));
  v1::Sampling* sampling = plan->request.mutable_sampling();
  if (!options.request.temperature) sampling->set_temperature(0);
  sampling->set_ignore_eos(!options.honour_eos);
  plan->is_chat = IsChat(options.request);
  if (plan->is_chat) {
    MNEMO_ASSIGN_OR_RETURN(*plan->request.mutable_chat(), MakeChat(options.request));
  }
  if (options.sessions > 0 && options.request.session.empty()) {
    return InvalidArgument("--sessions: only with --session, whose id they begin with");
  }
  return absl::OkStatus();
}

absl::StatusOr<Plan> MakePlan(const BenchOptions& options) {
  Plan plan;
  MNEMO_RETURN_IF_ERROR(PlanRequest(options, &plan));
  const auto parse_range = [](const char* name, const std::string& text,
                              bench::LengthRange* range) -> absl::Status {
    absl::StatusOr<bench::LengthRange> parsed = bench::LengthRange::Parse(text);
    if (!parsed.ok()) return Annotate(parsed.status(), name);
    *range = *parsed;
    return absl::OkStatus();
  };
  MNEMO_RETURN_IF_ERROR(parse_range("--input-tokens", options.input_tokens, &plan.input));
  MNEMO_RETURN_IF_ERROR(parse_range("--output-tokens", options.output_tokens, &plan.output));
  if (plan.input.low < 1) return InvalidArgument("--input-tokens: at least 1");
  if (options.trace.empty() && options.prompts.empty() && options.shared_prefix > plan.input.low) {
    return InvalidArgument(
        "--shared-prefix: {} tokens are more than the shortest prompt of --input-tokens {}",
        options.shared_prefix, options.input_tokens);
  }
  MNEMO_ASSIGN_OR_RETURN(plan.slo, bench::Slo::Parse(options.slo));
  if (!options.trace.empty()) MNEMO_RETURN_IF_ERROR(ReadTrace(options, &plan));
  if (!options.prompts.empty()) {
    MNEMO_ASSIGN_OR_RETURN(const std::string text, ReadFile(options.prompts));
    MNEMO_ASSIGN_OR_RETURN(plan.prompts, bench::ParsePrompts(text, options.prompts));
  }
  MNEMO_RETURN_IF_ERROR(PlanLoad(options, &plan));
  bench::RunDescription& description = plan.description;
  if (!plan.trace.empty()) {
    description.workload = fmt::format("trace {} ({} requests)", options.trace, plan.load.num_requests);
  } else if (!plan.prompts.empty()) {
    description.workload =
        fmt::format("prompts of {}, {} output tokens", options.prompts, options.output_tokens);
  } else {
    description.workload = fmt::format("{} prompt tokens ({} shared), {} output tokens", options.input_tokens,
                                       options.shared_prefix, options.output_tokens);
  }
  description.address = options.server.address;
  description.seed = options.seed;
  description.slo = options.slo;
  description.warmup = options.warmup;
  description.clipped = plan.clipped;
  description.options = GivenOptions(options.request);
  return plan;
}

// Request `index` has its own id, and its session by turns.
void NameRequest(const BenchOptions& options, int64_t index, v1::GenerateRequest* request) {
  if (!options.request.request_id.empty()) {
    request->set_request_id(index < 0 ? fmt::format("{}-warmup{}", options.request.request_id, -1 - index)
                                      : fmt::format("{}-{}", options.request.request_id, index));
  }
  if (options.sessions > 0) {
    const int64_t turn = ((index % options.sessions) + options.sessions) % options.sessions;
    request->set_session_id(fmt::format("{}-{}", options.request.session, turn));
  }
}

void SetPrompt(const Plan& plan, const bench::TextPrompt& prompt, v1::GenerateRequest* request) {
  if (prompt.chat.has_value()) {
    // A prompt's own list of tools takes precedence.
    if (!prompt.chat->tools_json().empty()) request->mutable_chat()->clear_tools_json();
    request->mutable_chat()->MergeFrom(*prompt.chat);
  } else if (plan.is_chat) {
    v1::Chat::Message* user = request->mutable_chat()->add_messages();
    user->set_role("user");
    user->set_content(prompt.text);
  } else {
    request->set_prompt(prompt.text);
  }
}

// `index` runs over the warm-up first: its prompts are not those of the measurement.
v1::GenerateRequest MakeRequest(const BenchOptions& options, const Plan& plan,
                                const bench::PromptMaker& prompts, int64_t index) {
  v1::GenerateRequest request = plan.request;
  NameRequest(options, index, &request);
  bench::Random random(bench::Mix(options.seed * 31 + 7) + static_cast<uint64_t>(index));
  int64_t output = random.InRange(plan.output.low, plan.output.high);
  std::vector<int32_t> ids;
  if (!plan.trace.empty() && index >= 0) {
    const bench::TraceEntry& entry = plan.trace[static_cast<size_t>(index)];
    output = entry.output_tokens;
    ids = prompts.FromTrace(index, entry);
  } else if (!plan.prompts.empty()) {
    const auto size = static_cast<int64_t>(plan.prompts.size());
    const bench::TextPrompt& prompt = plan.prompts[static_cast<size_t>(((index % size) + size) % size)];
    if (prompt.max_tokens >= 0) output = prompt.max_tokens;
    SetPrompt(plan, prompt, &request);
  } else {
    ids = prompts.Random(index, random.InRange(plan.input.low, plan.input.high), options.shared_prefix);
  }
  if (!ids.empty()) request.mutable_token_ids()->mutable_ids()->Add(ids.begin(), ids.end());
  v1::Sampling* sampling = request.mutable_sampling();
  sampling->set_max_tokens(static_cast<int32_t>(std::min<int64_t>(output, 1 << 30)));
  sampling->set_seed(options.seed + static_cast<uint64_t>(index));
  return request;
}

void ShowProgress(const bench::LoadProgress& progress, const bench::LoadOptions& load) {
  constexpr int kWidth = 30;
  double share = 0;
  if (load.num_requests > 0)
    share = static_cast<double>(progress.done) / static_cast<double>(load.num_requests);
  if (load.duration_seconds) share = std::max(share, progress.elapsed / *load.duration_seconds);
  const int filled = static_cast<int>(std::clamp(share, 0.0, 1.0) * kWidth);
  const std::string bar =
      std::string(static_cast<size_t>(filled), '#') + std::string(static_cast<size_t>(kWidth - filled), '.');
  const double elapsed = std::max(progress.elapsed, 1e-9);
  const std::string line = fmt::format(
      "\r\x1b[K[{}] {:3.0f} %  {} done  {} running  {} failed  {:.1f} requests/s  {:.0f} tokens/s", bar,
      std::min(share, 1.0) * 100, progress.done, progress.sent - progress.done, progress.failed,
      static_cast<double>(progress.done) / elapsed, static_cast<double>(progress.output_tokens) / elapsed);
  std::fputs(line.c_str(), stderr);
}

absl::Status SaveRecords(const std::string& path, const std::vector<bench::RequestRecord>& records) {
  std::ofstream file(path, std::ios::binary);
  for (const bench::RequestRecord& record : records) file << bench::RecordJson(record) << "\n";
  file.close();
  if (!file) return InvalidArgument("--save: cannot write {}", path);
  return absl::OkStatus();
}

// The run that Ctrl-C stops: the warm-up, then the measurement.
class CurrentRun {
 public:
  void Set(bench::LoadRun* run) {
    std::lock_guard lock(mutex_);
    run_ = run;
    if (stopped_ && run_ != nullptr) run_->Stop();
  }
  void Stop() {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    if (run_ != nullptr) run_->Stop();
  }

 private:
  std::mutex mutex_;
  bench::LoadRun* run_ = nullptr;
  bool stopped_ = false;
};

int Measure(const BenchOptions& options, Plan* plan, const std::vector<client::Client*>& clients,
            const bench::PromptMaker& prompts) {
  CurrentRun current;
  InterruptGuard interrupt([&] { current.Stop(); });
  if (options.warmup > 0) {
    bench::LoadOptions load = plan->load;
    load.concurrency = load.concurrency > 0 ? load.concurrency : 1;
    load.num_requests = options.warmup;
    load.duration_seconds.reset();
    bench::LoadRun run(
        clients, load, [&](int64_t index) { return MakeRequest(options, *plan, prompts, -1 - index); },
        nullptr);
    current.Set(&run);
    const std::vector<bench::RequestRecord> records = run.Run([](const bench::LoadProgress&) {});
    current.Set(nullptr);
    if (interrupt.interrupted()) return kExitInterrupted;
    const bool all_failed =
        std::none_of(records.begin(), records.end(), [](const auto& record) { return record.ok(); });
    if (all_failed) return Fail(Annotate(records.front().status, "every request of the warm-up failed"));
  }

  const bool show = !options.no_progress && IsTerminal(STDERR_FILENO);
  bench::PoissonArrivals arrivals(options.rate, options.seed);
  const auto due = [&](int64_t index) {
    return options.rate > 0 ? arrivals.Next() : plan->trace[static_cast<size_t>(index)].arrival;
  };
  bench::LoadRun run(
      clients, plan->load, [&](int64_t index) { return MakeRequest(options, *plan, prompts, index); }, due);
  current.Set(&run);
  const std::vector<bench::RequestRecord> records = run.Run([&](const bench::LoadProgress& progress) {
    if (show) ShowProgress(progress, plan->load);
  });
  current.Set(nullptr);
  if (show) std::fputs("\n", stderr);
  if (!options.save.empty()) {
    if (const absl::Status status = SaveRecords(options.save, records); !status.ok()) return Fail(status);
  }
  const bench::Report report = bench::MakeReport(records, plan->slo);
  const std::string text = options.json ? bench::ReportJson(plan->description, report) + "\n"
                                        : bench::ReportText(plan->description, report);
  if (!WriteOut(text)) return kExitBrokenPipe;
  for (const bench::RequestRecord& record : records) {
    if (record.ok() || interrupt.interrupted()) continue;
    std::fprintf(stderr, "mnemo: the first failure: ");
    Fail(record.status);
    break;
  }
  if (interrupt.interrupted()) return kExitInterrupted;
  return report.succeeded > 0 ? kExitOk : kExitFailed;
}

int RunBench(const BenchOptions& options) {
  absl::StatusOr<Plan> plan = MakePlan(options);
  if (!plan.ok()) return FailUsage(std::string(plan.status().message()));
  std::vector<std::unique_ptr<client::Client>> owned;
  std::vector<client::Client*> clients;
  for (int i = 0; i < options.connections; ++i) {
    if (const int code = Connect(options.server, &owned.emplace_back(), options.connections > 1);
        code != kExitOk)
      return code;
    clients.push_back(owned.back().get());
  }
  const absl::StatusOr<v1::ListModelsResponse::Model> model = FindModel(clients[0], options.request.model);
  if (!model.ok()) return Fail(model.status());
  plan->description.model = model->name();
  std::vector<int32_t> vocabulary = {0};
  if (plan->prompts.empty()) {
    absl::StatusOr<std::vector<int32_t>> ids = OrdinaryIds(clients[0], *model);
    if (!ids.ok()) return Fail(ids.status());
    vocabulary = *std::move(ids);
  }
  return Measure(options, &*plan, clients, bench::PromptMaker(std::move(vocabulary), options.seed));
}

void AddLoadOptions(CLI::App* command, BenchOptions* options) {
  const char* const kLoad = "Load";
  auto* concurrency = command
                          ->add_option("-c,--concurrency", options->concurrency,
                                       "Closed loop: so many requests in flight; default 1")
                          ->check(CLI::Range(1, 100000))
                          ->group(kLoad);
  auto* rate = command
                   ->add_option("-r,--rate", options->rate,
                                "Open loop: requests a second, arrivals of a Poisson process")
                   ->check(CheckNumber)
                   ->check(CLI::Range(1e-6, 1e6))
                   ->group(kLoad);
  rate->excludes(concurrency);
  command
      ->add_option("-n,--num-requests", options->num_requests,
                   "Stop after so many; default 100, or all of the trace")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
      ->group(kLoad);
  command
      ->add_option("--duration", options->duration,
                   "Send nothing after this time; what is in flight is waited for (30s, 5m)")
      ->type_name("DURATION")
      ->group(kLoad);
  command->add_option("--warmup", options->warmup, "Requests before the measurement, not counted; default 0")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40))
      ->group(kLoad);
  command
      ->add_option("--max-in-flight", options->max_in_flight,
                   "Open loop: a request past it waits, and its wait counts")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str()
      ->group(kLoad);
  command->add_option("--connections", options->connections, "Connections over which requests go round")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str()
      ->group(kLoad);
  command
      ->add_option("--timeout,--deadline", options->timeout, "Deadline of each request (10s); default: none")
      ->type_name("DURATION")
      ->group(kLoad);
}

void AddWorkloadOptions(CLI::App* command, BenchOptions* options) {
  const char* const kWorkload = "Workload";
  const auto positive = CLI::Range(int64_t{1}, int64_t{1} << 30);
  command
      ->add_option("-i,--input-tokens", options->input_tokens,
                   "Prompt length in tokens, N or LOW:HIGH (drawn evenly)")
      ->capture_default_str()
      ->group(kWorkload);
  command
      ->add_option("-o,--output-tokens,--max-tokens", options->output_tokens,
                   "Output length in tokens, N or LOW:HIGH (drawn evenly)")
      ->capture_default_str()
      ->group(kWorkload);
  command
      ->add_option("--shared-prefix", options->shared_prefix,
                   "Tokens at the front of every prompt that are the same; default 0, at most --input-tokens")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 30))
      ->group(kWorkload);
  auto* trace =
      command
          ->add_option(
              "--trace", options->trace,
              "JSONL trace in Mooncake's format: timestamp (ms), input_length, output_length (tokens), "
              "hash_ids (one a\n"
              "512 tokens of input; equal ids become equal tokens, so that prefixes are shared as they were)")
          ->type_name("FILE")
          ->group(kWorkload);
  command
      ->add_option("--trace-speed", options->trace_speed,
                   "2 = the trace's arrivals twice as fast; with --concurrency they are ignored")
      ->check(CheckNumber)
      ->check(CLI::Range(1e-6, 1e6))
      ->needs(trace)
      ->group(kWorkload);
  command
      ->add_option("--clip-input", options->clip_input,
                   "Shorten longer prompts of the trace to so many tokens")
      ->check(positive)
      ->needs(trace)
      ->group(kWorkload);
  command
      ->add_option("--clip-output", options->clip_output,
                   "Shorten longer outputs of the trace to so many tokens")
      ->check(positive)
      ->needs(trace)
      ->group(kWorkload);
  command
      ->add_option("--prompts", options->prompts,
                   "Text prompts, a line each, or {\"prompt\": ..., \"max_tokens\": n}, or {\"messages\": "
                   "[...]}; used in "
                   "turn")
      ->type_name("FILE")
      ->excludes(trace)
      ->group(kWorkload);
  command
      ->add_option("--sessions", options->sessions,
                   "With --session ID: request i goes with ID-(i mod N); default: all with ID")
      ->check(CLI::Range(1, 1 << 20))
      ->group(kWorkload);
  command
      ->add_flag("--honour-eos", options->honour_eos,
                 "Let answers end by themselves; default: exactly the output length is generated")
      ->group(kWorkload);
  command->add_option("--seed", options->seed, "Of prompts, lengths, arrivals and sampling")
      ->check(CheckSeed)
      ->capture_default_str()
      ->group(kWorkload);
}

void AddBenchRequestOptions(CLI::App* command, RequestOptions* options) {
  constexpr char kPrompts[] = "--input-tokens, --trace or --prompts make the prompts";
  using Kind = Variation::Kind;
  const Variation variations[] = {
      {"prompt", Kind::kRefuse, kPrompts},
      {"--file", Kind::kRefuse, kPrompts},
      {"--token-ids", Kind::kRefuse, kPrompts},
      {"--chat", Kind::kText, "Each text of --prompts is a user's message"},
      {"--max-tokens", Kind::kOwn, ""},
      {"--seed", Kind::kOwn, ""},
      {"--deadline", Kind::kOwn, ""},
      {"--retry-overload", Kind::kRefuse, "a refusal is a result, which is counted"},
      {"--temperature", Kind::kText, "[0, 5]; default 0 = greedy"},
      {"--ignore-eos", Kind::kText, "As it is anyway without --honour-eos"},
      {"--session", Kind::kText, "Session id of all requests, or what theirs begin with (--sessions)"},
      {"--request-id", Kind::kText, "What the requests' names in logs begin with: ID-0, ID-1, ..."}};
  AddRequestOptions(command, options, variations);
  command->get_option("--honour-eos")->excludes("--ignore-eos");
  for (const char* name :
       {"--parse-special", "--add-special", "--no-add-special", "--chat", "--system", "--messages", "--tools",
        "--template-arg", "--omit-generation-prompt", "--continue-final-message"}) {
    command->get_option(name)->needs("--prompts");  // other prompts are token ids
  }
  command->get_option("--no-add-special")->excludes("--add-special");
}

}  // namespace

RunCommand AddBench(CLI::App* command) {
  auto options = std::make_shared<BenchOptions>();
  AddServerOptions(command, &options->server);
  AddLoadOptions(command, options.get());
  AddWorkloadOptions(command, options.get());
  AddBenchRequestOptions(command, &options->request);
  const char* const kOutput = "Output";
  command
      ->add_option("--slo", options->slo,
                   "Objectives for goodput: ttft=500ms,tpot=50ms,itl=200ms,e2e=10s (any of them)")
      ->type_name("LIST")
      ->group(kOutput);
  command->add_flag("--json", options->json, "Print one JSON object instead of the table; times in seconds")
      ->group(kOutput);
  command->add_option("--save", options->save, "Write a JSON line for each request")
      ->type_name("FILE")
      ->group(kOutput);
  command
      ->add_flag("--no-progress", options->no_progress,
                 "No progress bar (there is none either when standard error is no terminal)")
      ->group(kOutput);
  command->footer(kFooter);
  return [options] { return RunBench(*options); };
}

}  // namespace mnemo::cli
