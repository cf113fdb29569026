#include "config/schema.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "config/energy_texts.h"
#include "devices/base/address.h"
#include "devices/base/display_name.h"
#include "server/memory/methods/method.h"

namespace mnemo::config {
namespace {

constexpr int64_t kHourMs = 3600 * 1000;
constexpr int64_t kDayMs = 24 * kHourMs;
constexpr int64_t kMaxTokens = 16 << 20;
constexpr size_t kMaxSocketPath = sizeof(sockaddr_un::sun_path) - 1;

template <typename T>
KeySpec Number(std::string_view key, T& (*field)(Config&), int64_t min, int64_t max, std::string_view text) {
  return {key, NumberSpec<T>{field, min, max}, text};
}
// Like Number, with 0 allowed below the range.
template <typename T>
KeySpec NumberOrZero(std::string_view key, T& (*field)(Config&), int64_t min, int64_t max,
                     std::string_view text) {
  return {key, NumberSpec<T>{field, min, max, 0}, text};
}
KeySpec NumberChoice(std::string_view key, int& (*field)(Config&), std::vector<int64_t> choices,
                     std::string_view text) {
  const auto [min, max] = std::minmax_element(choices.begin(), choices.end());
  const int64_t low = *min, high = *max;
  return {key, NumberSpec<int>{field, low, high, -1, std::move(choices)}, text};
}
KeySpec Bool(std::string_view key, bool& (*field)(Config&), std::string_view text) {
  return {key, BoolSpec{field}, text};
}
KeySpec Text(std::string_view key, std::string& (*field)(Config&), TextForm form, std::string_view text) {
  return {key, TextSpec{field, form}, text};
}
KeySpec Choice(std::string_view key, std::string& (*field)(Config&), std::vector<std::string_view> choices,
               std::string_view text) {
  return {key, TextSpec{field, TextForm::kChoice, std::move(choices)}, text};
}
KeySpec Reloadable(KeySpec spec) {
  spec.reloadable = true;
  return spec;
}

// A key is named after the path of its field in Config.
#define MNEMO_KEY(path) #path, +[](Config & config) -> decltype((config.path)) { return config.path; }

void AddServerAndModel(std::vector<KeySpec>* specs) {
  specs->insert(
      specs->end(),
      {Text(
           MNEMO_KEY(server.listen), TextForm::kListenAddress,
           "Address of the public gRPC services. There is no encryption and no authentication: use loopback, "
           "a Unix socket, or a network that you trust."),
       Text(MNEMO_KEY(server.listen_mode), TextForm::kFileMode,
            "Permissions of the socket's file when server.listen is unix:/PATH; whoever may write it may "
            "connect."),
       Number(
           MNEMO_KEY(server.max_connections), 0, 1 << 20,
           "Connections of clients at once; calls on a further one end with RESOURCE_EXHAUSTED. 0 stands for "
           "as many as the hard limit of descriptors leaves after 64, 8 for each worker and memory service, "
           "and one for each further file of the model, at most 65536; a larger figure than it leaves is cut "
           "to that."),
       Text(MNEMO_KEY(server.metrics_listen), TextForm::kOptionalListen,
            "Address of the Prometheus endpoint /metrics, IPv4; empty switches it off."),
       Number(MNEMO_KEY(server.max_message_bytes), 64 << 10, 1 << 30,
              "Largest message taken from a client; a larger one is answered RESOURCE_EXHAUSTED."),
       Reloadable(
           Number(MNEMO_KEY(server.drain_timeout_ms), 0, kHourMs,
                  "After SIGTERM running requests have so long to finish; then they end with UNAVAILABLE.")),
       Reloadable(Number(
           MNEMO_KEY(server.health_grace_ms), 0, kHourMs,
           "After the loss of the last ready worker health checks still say SERVING for so long, so that a "
           "short restart does not take the node out of service; requests wait meanwhile. A worker that "
           "hangs is lost after workers.hang_timeout_ms.")),
       Reloadable(
           Number(MNEMO_KEY(server.slow_reader_max_tokens), 1, kMaxTokens,
                  "Tokens merged for a client that does not read; past them its request is cancelled.")),
       Reloadable(Number(MNEMO_KEY(server.slow_reader_timeout_ms), 1, kDayMs,
                         "A message that the client does not take for so long cancels its request.")),
       Number(
           MNEMO_KEY(server.stream_interval_ms), 0, 1000,
           "Tokens that follow each other faster than this go to the client together, as many as fit in; "
           "the first 32 of a request, the last one and those of a request with stop strings never wait. 0 "
           "sends each by itself."),
       Bool(MNEMO_KEY(server.reflection),
            "Serve gRPC reflection, by which generic clients find the services and their messages."),
       Text(MNEMO_KEY(model.path), TextForm::kModelFile,
            "The GGUF file to serve, absolute or relative to the working directory; the first one of a model "
            "in several, NAME-00001-of-0000N.gguf. Serving needs one."),
       Text(MNEMO_KEY(model.name), TextForm::kName,
            "Name under which clients see the model; empty takes general.name of the file."),
       Text(MNEMO_KEY(model.chat_template), TextForm::kAny,
            "The chat template instead of the model file's: a family's name, such as chatml or llama3, or "
            "the path "
            "of a file with a template."),
       {"model.end_token_ids",
        NumberListSpec{[](Config& config) -> std::vector<int64_t>& { return config.model.end_token_ids; }, 0,
                       INT32_MAX, 64},
        "Token ids that end a generation; an empty list takes those of the model's family."},
       NumberOrZero(
           MNEMO_KEY(model.context_tokens), 64, kMaxTokens,
           "Longest sequence, prompt and output together, at most the model's own; 0 takes the "
           "model's own, or as much of it as fits the KV page pool. One that is set and does not fit "
           "is refused at the start."),
       Text(MNEMO_KEY(text.python), TextForm::kAny,
            "Interpreter of the process that renders chat templates; it needs Python 3 with Jinja2."),
       Number(MNEMO_KEY(text.template_timeout_ms), 10, kHourMs,
              "Rendering a chat may take so long; past it the chat is refused and the process is killed and "
              "started "
              "again."),
       Number(MNEMO_KEY(text.template_memory_bytes), 128 << 20, int64_t{1} << 40,
              "Address space of the process that renders chat templates; a chat that needs more is refused."),
       Number(MNEMO_KEY(text.template_output_bytes), 64 << 10, 1 << 30,
              "Text that a template may make of one chat; a chat with more is refused.")});
}

void AddDeviceAndWorkers(std::vector<KeySpec>* specs) {
  specs->insert(
      specs->end(),
      {Choice(MNEMO_KEY(device), {"cpu", "reference"},
              "Where the model runs: cpu is the fast device, reference computes in float32 and serves as "
              "the yardstick."),
       Choice(MNEMO_KEY(cpu.isa), {"auto", "baseline", "avx2", "avx512", "avx512_vnni"},
              "Instruction set of the kernels; auto takes the best that the machine has. It is part of "
              "numerics_id."),
       NumberOrZero(MNEMO_KEY(cpu.threads), 1, 1024,
                    "Threads of all local workers together; 0 takes one for each core that may be used."),
       Number(MNEMO_KEY(workers.count), 0, 64, "Worker processes that mnemod starts and supervises."),
       {"workers.addresses",
        AddressListSpec{[](Config& config) -> std::vector<std::string>& { return config.workers.addresses; },
                        64},
        "Workers that someone else starts, by address."},
       Text(MNEMO_KEY(workers.binary), TextForm::kProgram,
            "The worker program; empty takes mnemo-worker beside mnemod."),
       Text(MNEMO_KEY(workers.runtime_dir), TextForm::kAny,
            "Directory of the workers' sockets, of one mnemod alone; empty makes a private one under "
            "$XDG_RUNTIME_DIR or /tmp. It is made again when it is removed; sockets whose path would be too "
            "long are in "
            "a private one in /tmp."),
       Number(MNEMO_KEY(workers.start_timeout_ms), 100, kHourMs,
              "A started worker that is not ready after so long is killed and started again."),
       Number(MNEMO_KEY(workers.heartbeat_interval_ms), 10, 60000, "A worker reports its state this often."),
       Number(MNEMO_KEY(workers.hang_timeout_ms), 100, kHourMs,
              "A worker without a heartbeat, or with work and without progress, for so long is killed, "
              "but one whose threads wait for a core only after up to ten times as long."),
       Number(MNEMO_KEY(workers.restart_backoff_ms), 1, kHourMs,
              "Pause before a dead worker is started again; doubles with each failure in a row."),
       Number(MNEMO_KEY(workers.restart_backoff_max_ms), 1, kHourMs, "The longest such pause."),
       Number(MNEMO_KEY(workers.no_worker_timeout_ms), 0, kHourMs,
              "A request waits so long for a worker that can take it; then it ends with UNAVAILABLE."),
       Number(MNEMO_KEY(workers.keepalive_time_ms), 100, kHourMs,
              "A TCP link to a worker that is silent for so long is probed."),
       Number(MNEMO_KEY(workers.keepalive_timeout_ms), 100, kHourMs,
              "A probe that is not answered within so long closes the link.")});
}

void AddEngine(std::vector<KeySpec>* specs) {
  specs->insert(
      specs->end(),
      {Number(MNEMO_KEY(engine.max_batch_rows), 1, 8192,
              "Rows of one step of a worker: one for each decoding sequence, the rest for prefill."),
       Number(MNEMO_KEY(engine.max_running), 1, 1024,
              "Requests that hold KV pages at once, for each worker."),
       Number(MNEMO_KEY(engine.max_waiting), 1, 65536,
              "Requests that wait for pages at once, for each worker."),
       Number(MNEMO_KEY(engine.reserve_tokens), 1, 1 << 20,
              "A request is admitted when its prompt and this much of its output (or its max_tokens, if "
              "less) fit the free pages."),
       Choice(MNEMO_KEY(engine.kv_type), {"auto", "f16", "bf16", "q8"},
              "Number format of the KV cache; q8 has half the bytes of the others. auto is q8 where its "
              "error is below that of the weights: weights in block formats (Q8_0 and below), heads of up to "
              "128 dimensions and no bias on keys; else f16. It is part of numerics_id."),
       NumberOrZero(
           MNEMO_KEY(engine.kv_cache_bytes), 1 << 10, int64_t{1} << 44,
           "Size of each worker's KV page pool; 0 takes four whole contexts, over all workers at most a "
           "quarter of the memory that may be used. A request that alone needs more is refused; one "
           "without max_tokens ends where the pool does."),
       Bool(MNEMO_KEY(engine.prefix_cache), "Reuse the KV pages of earlier prompts that begin alike."),
       Number(MNEMO_KEY(engine.max_sessions), 1, 1 << 20,
              "Sessions that a worker remembers; beyond it the least recently used is forgotten.")});
}

// Names of the methods with a trait: "page_bound and block_mean".
std::string Enumerated(bool (*trait)(const memory::methods::Method& method)) {
  return memory::methods::Joined(memory::methods::NamesWhere(trait), "and");
}

void AddAttention(std::vector<KeySpec>* specs) {
  using memory::methods::KeyBits;
  using memory::methods::Method;
  const std::vector<std::string_view> methods = memory::methods::RunnableNames();
  // Texts that name methods; the table of keys holds views of them.
  static const std::string first_stage_text = fmt::format(
      "Tokens that pass the first stage of {}, where the request does not say; 0 takes four times its token "
      "budget.",
      Enumerated([](const Method& method) { return method.two_stages; }));
  static const std::string key_bits_text =
      fmt::format("Bits of an indexed key's element in {}, where the request does not say.",
                  Enumerated([](const Method& method) { return method.key_bits == KeyBits::kChosen; }));
  static const std::string entry_tokens_text =
      fmt::format("Tokens of a page that {} select. It is part of numerics_id.",
                  Enumerated([](const Method& method) { return method.selects_pages; }));
  specs->insert(
      specs->end(),
      {Choice(MNEMO_KEY(attention.default_method), methods,
              "Attention method of requests without the field attention."),
       Choice(MNEMO_KEY(attention.sparse_method), {methods.begin() + 1, methods.end()},
              "Attention method of requests whose attention names none."),
       Number(MNEMO_KEY(attention.token_budget), 64, kMaxTokens,
              "Tokens that sparse attention attends to, where the request does not say."),
       Number(MNEMO_KEY(attention.keep_first), 0, 1024,
              "Oldest tokens always attended to, where the request does not say."),
       Number(MNEMO_KEY(attention.keep_last), 0, 4096,
              "Newest tokens always attended to, the open page besides, where the request does not say."),
       Number(MNEMO_KEY(attention.reuse_interval), 1, 64,
              "Decode steps that share one selection, where the request does not say."),
       NumberOrZero(MNEMO_KEY(attention.first_stage_tokens), 64, kMaxTokens, first_stage_text),
       NumberChoice(MNEMO_KEY(attention.key_bits), {2, 4, 8}, key_bits_text),
       Number(MNEMO_KEY(attention.dense_layers), 0, 1024,
              "So many of the model's first full-attention layers attend to everything with any method. It "
              "is part of numerics_id."),
       NumberChoice(MNEMO_KEY(attention.entry_tokens), {16, 64}, entry_tokens_text)});
}

void AddMemory(std::vector<KeySpec>* specs) {
  specs->insert(
      specs->end(),
      {Number(MNEMO_KEY(memory.services), 0, 64,
              "Memory services that mnemod starts and supervises. Worker i uses number i modulo the count of "
              "these and of memory.addresses, in that order; with none all memory processing is in the "
              "workers."),
       {"memory.addresses",
        AddressListSpec{[](Config& config) -> std::vector<std::string>& { return config.memory.addresses; },
                        64, "ucx:"},
        "Memory services that someone else starts: the data socket of one on this machine, or the "
        "--remote-listen of one on another, where UCX is built in."},
       Text(MNEMO_KEY(memory.binary), TextForm::kProgram,
            "The program of memory services; empty takes mnemo-memory beside mnemod."),
       Text(MNEMO_KEY(memory.device), TextForm::kIdentifier,
            "The kind of memory device that keeps and searches the indexes of a memory service, one of those "
            "that this build has: cpu; card-model, the FPGA card in software; rtl, its simulation cycle by "
            "cycle; xrt, a card. Another one is refused at the start."),
       {"memory.device_options",
        PairListSpec{[](Config& config) -> std::vector<std::string>& { return config.memory.device_options; },
                     32},
        "Options that this kind of device alone understands: cpu has none, card-model has channels, "
        "hbm_bytes, group, scorers, bank_words, clock_mhz, max_group and max_k, rtl has channels, hbm_bytes, "
        "clock_mhz, max_group, max_k, seed, fault, fault_at, watchdog and trace, xrt has xclbin, index, bdf, "
        "memory, hbm_bytes, host_bytes, clock_mhz and watchdog."},
       Number(MNEMO_KEY(memory.operation_timeout_ms), 1, kHourMs,
              "A memory device that does not finish an operation within so long is reset."),
       NumberOrZero(MNEMO_KEY(memory.threads), 1, 1024,
                    "Threads of each memory service; 0 takes one for each core that may be used."),
       NumberOrZero(
           MNEMO_KEY(memory.index_bytes), 1 << 20, int64_t{1} << 44,
           "What the indexes of each memory service may take, with the keys and values that they "
           "keep; 0 divides a quarter of the memory that may be used among them. A card's own memory "
           "bounds their records too."),
       NumberOrZero(
           MNEMO_KEY(memory.quota_bytes), 1 << 14, int64_t{1} << 44,
           "What the indexes of one worker may take of that; 0 divides it evenly among the workers of the "
           "service."),
       Choice(MNEMO_KEY(memory.placement), {"inline", "memory_service"},
              "Where relevancy and retrieval of a request run that leaves its placement to the server."),
       Choice(
           MNEMO_KEY(memory.kv_residency), {"worker", "memory_service"},
           "Where keys and values of sparse layers are. With memory_service the worker has of each sparse "
           "sequence the newest pages and what was selected last, so that sequences may be longer than its "
           "pool; requests that leave their placement to the server go to the service, too."),
       NumberOrZero(
           MNEMO_KEY(memory.resident_tokens), 64, 1 << 28,
           "With kv_residency memory_service: positions of such sequences, prompt and max_tokens, that "
           "each worker has room for in the layers that are not sparse; 0 takes four contexts, or as many as "
           "half of the worker's part of a quarter of memory holds."),
       Number(MNEMO_KEY(memory.kv_wait_ms), 0, kHourMs,
              "A request whose keys and values went with its memory service waits so long for another one; "
              "then it ends UNAVAILABLE."),
       Number(MNEMO_KEY(memory.round_trip_timeout_ms), 10, kHourMs,
              "A worker whose memory service does not answer for so long goes on without it."),
       Number(MNEMO_KEY(memory.start_timeout_ms), 100, kHourMs,
              "A started memory service that is not ready after so long is killed and started again."),
       Number(MNEMO_KEY(memory.health_interval_ms), 10, 60000,
              "A memory service is asked for its figures this often."),
       Number(MNEMO_KEY(memory.hang_timeout_ms), 100, kHourMs,
              "A memory service that does not answer such a question for so long is killed."),
       Number(MNEMO_KEY(memory.restart_backoff_ms), 1, kHourMs,
              "Pause before a dead memory service is started again; doubles with each failure in a row."),
       Number(MNEMO_KEY(memory.restart_backoff_max_ms), 1, kHourMs, "The longest such pause.")});
}

void AddEnergy(std::vector<KeySpec>* specs) {
  specs->insert(
      specs->end(),
      {Bool(MNEMO_KEY(energy.enabled),
            "Count joules where there is a meter or a model; false leaves out their fields and metrics."),
       {"energy.sources",
        FormListSpec{[](Config& config) -> std::vector<std::string>& { return config.energy.sources; },
                     std::size(kEnergySources), "rapl | perf | nvml | rocm_smi | xrt", CheckEnergySources},
        "Where meters are looked for. Of two that cover one device the first in the order of the default "
        "counts, and the other one is compared with it."},
       Number(MNEMO_KEY(energy.interval_ms), 10, 10000, "Time between two readings of each meter."),
       Text(MNEMO_KEY(energy.powercap_root), TextForm::kAny,
            "Directory of the kernel's powercap zones, which hold the energy of CPU packages and DRAM."),
       Text(MNEMO_KEY(energy.nvml_library), TextForm::kAny,
            "NVIDIA's management library, opened at the start if it is there; a file name or a path."),
       Text(MNEMO_KEY(energy.rocm_smi_library), TextForm::kAny,
            "AMD's ROCm SMI library, opened at the start if it is there; a file name or a path."),
       Text(MNEMO_KEY(energy.socket), TextForm::kAny,
            "Unix socket of mnemo-energy, whose readings are taken for counters that the process itself may "
            "not read; empty for none."),
       Choice(MNEMO_KEY(energy.idle_share), {"busy", "none"},
              "Energy of an idle device while requests are in flight: busy divides it among them by their "
              "time, none counts it as idle."),
       {"energy.idle_watts",
        FormListSpec{[](Config& config) -> std::vector<std::string>& { return config.energy.idle_watts; }, 64,
                     "DEVICE=WATTS",
                     [](const std::vector<std::string>& texts) { return ParseIdleWatts(texts).status(); }},
        "Power of devices without work, such as cpu0=12.5; of others it is measured while there are no "
        "requests."},
       {"energy.model",
        FormListSpec{[](Config& config) -> std::vector<std::string>& { return config.energy.model; }, 64,
                     "DEVICE idle=WATTS busy=WATTS, DEVICE idle=WATTS byte=JOULES operation=JOULES",
                     [](const std::vector<std::string>& texts) { return ParseEnergyModel(texts).status(); }},
        "Models of devices without a meter. For cpuN and dramN, power without work and at full use: energy "
        "follows the use of the CPUs, and mnemo energy --calibrate prints such lines. For any device, power "
        "without work, and joules of each byte and multiply-add."}});
}

void AddLimitsAndLog(std::vector<KeySpec>* specs) {
  specs->insert(
      specs->end(),
      {Reloadable(
           Number(MNEMO_KEY(limits.max_running), 1, 65536, "Requests that run at once, on all workers.")),
       Reloadable(Number(MNEMO_KEY(limits.max_queued), 0, 1 << 20,
                         "Requests that wait for a place; one more is answered RESOURCE_EXHAUSTED.")),
       Reloadable(NumberOrZero(
           MNEMO_KEY(limits.max_tokens_in_flight), 1, int64_t{1} << 40,
           "Prompt and max_tokens of all admitted requests together, of those that name no max_tokens "
           "engine.reserve_tokens; one that would exceed it is answered RESOURCE_EXHAUSTED. 0 takes "
           "1048576, or the context that is offered where that is more.")),
       Reloadable(
           NumberOrZero(MNEMO_KEY(limits.max_tokens), 1, kMaxTokens,
                        "Largest max_tokens of one request, and that of one without; 0 leaves it to the "
                        "context and the worker's KV page pool.")),
       Reloadable(
           Number(MNEMO_KEY(limits.retry_pushback_ms), 0, kHourMs,
                  "When an overloaded server lets clients try again (trailer grpc-retry-pushback-ms).")),
       Number(MNEMO_KEY(limits.session_ttl_ms), 1, kDayMs * 7,
              "A session without a request for so long is forgotten, by the router and by the workers."),
       Number(MNEMO_KEY(limits.max_sessions), 1, 1 << 20,
              "Sessions that the router remembers; beyond it the least recently used is forgotten."),
       Reloadable(Choice(MNEMO_KEY(log.level), {"trace", "debug", "info", "warn", "error"},
                         "Lines of this level and above are written.")),
       Choice(MNEMO_KEY(log.format), {"text", "json"},
              "Text for people, or one JSON object a line (time, level, process, message, request_id)."),
       Text(MNEMO_KEY(log.file), TextForm::kAny,
            "File that lines are appended to, opened again on SIGHUP; empty is standard error. Nothing waits "
            "for "
            "it: lines that it does not take in time are dropped and counted "
            "(mnemo_log_lines_dropped_total).")});
}

#undef MNEMO_KEY

std::vector<KeySpec> MakeSpecs() {
  std::vector<KeySpec> specs;
  AddServerAndModel(&specs);
  AddDeviceAndWorkers(&specs);
  AddEngine(&specs);
  AddAttention(&specs);
  AddMemory(&specs);
  AddEnergy(&specs);
  AddLimitsAndLog(&specs);
  return specs;
}

template <typename T>
std::string Range(const NumberSpec<T>& spec) {
  if (!spec.choices.empty()) return fmt::format("{}", fmt::join(spec.choices, " | "));
  std::string range = fmt::format("[{}, {}]", spec.min, spec.max);
  return spec.special >= 0 ? fmt::format("{} or {}", spec.special, range) : range;
}

std::string PrintList(const std::vector<std::string>& texts) {
  std::vector<std::string> quoted;
  for (const std::string& text : texts) quoted.push_back(Quoted(text));
  return fmt::format("[{}]", fmt::join(quoted, ", "));
}

std::string TextAllowed(const TextSpec& spec) {
  switch (spec.form) {
    case TextForm::kAny:
      return "any text";
    case TextForm::kName:
      return "UTF-8 of up to 256 bytes without control characters";
    case TextForm::kIdentifier:
      return "a lower-case letter, then letters, digits, _ and -, 32 at most";
    case TextForm::kChoice:
      return fmt::format("{}", fmt::join(spec.choices, " | "));
    case TextForm::kListenAddress:
      return "HOST:PORT, port 0 for any free one, or unix:/PATH of at most 107 bytes";
    case TextForm::kOptionalListen:
      return "HOST:PORT, port 0 for any free one, or empty";
    case TextForm::kFileMode:
      return "octal, 0000 to 0777";
    case TextForm::kModelFile:
      return "a file that can be read, or empty";
    case TextForm::kProgram:
      return "a program that can be run, or empty";
  }
  return "";
}

const char* CheckAccess(const std::string& path, int access_mode, const char* denied) {
  struct stat info = {};
  if (::stat(path.c_str(), &info) != 0) return errno == EACCES ? denied : "no such file";
  if (S_ISDIR(info.st_mode)) return "is a directory";
  if (!S_ISREG(info.st_mode)) return "is not a regular file";
  return ::access(path.c_str(), access_mode) == 0 ? nullptr : denied;
}

template <typename... Fs>
struct Overloaded : Fs... {
  using Fs::operator()...;
};
template <typename... Fs>
Overloaded(Fs...) -> Overloaded<Fs...>;

}  // namespace

std::string Quoted(std::string_view text) {
  std::string quoted = "\"";
  for (char c : text) {
    if (static_cast<unsigned char>(c) < 0x20) {
      quoted += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
      continue;
    }
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + '"';
}

std::string KeySpec::Type() const {
  return std::visit(
      Overloaded{[](const NumberSpec<int>&) { return "integer"; },
                 [](const NumberSpec<int64_t>&) { return "integer"; },
                 [](const BoolSpec&) { return "boolean"; }, [](const TextSpec&) { return "string"; },
                 [](const NumberListSpec&) { return "list of integers"; },
                 [](const AddressListSpec&) { return "list of strings"; },
                 [](const PairListSpec&) { return "list of strings"; },
                 [](const FormListSpec&) { return "list of strings"; }},
      value);
}

std::string KeySpec::Allowed() const {
  return std::visit(
      Overloaded{
          [](const NumberSpec<int>& spec) { return Range(spec); },
          [](const NumberSpec<int64_t>& spec) { return Range(spec); },
          [](const BoolSpec&) { return std::string("true | false"); },
          [](const TextSpec& spec) { return TextAllowed(spec); },
          [](const NumberListSpec& spec) {
            return fmt::format("at most {} of [{}, {}]", spec.max_count, spec.min, spec.max);
          },
          [](const AddressListSpec& spec) {
            return fmt::format("at most {} of {}HOST:PORT or unix:/PATH", spec.max_count,
                               spec.network_prefix);
          },
          [](const PairListSpec& spec) { return fmt::format("at most {} of KEY=VALUE", spec.max_count); },
          [](const FormListSpec& spec) {
            return fmt::format("at most {} of {}", spec.max_count, spec.form);
          }},
      value);
}

std::string KeySpec::Print(const Config& config) const {
  // The accessors give mutable references; nothing is written through them here.
  auto& mutable_config = const_cast<Config&>(config);
  return std::visit(
      Overloaded{
          [&](const NumberSpec<int>& spec) { return std::to_string(spec.field(mutable_config)); },
          [&](const NumberSpec<int64_t>& spec) { return std::to_string(spec.field(mutable_config)); },
          [&](const BoolSpec& spec) { return std::string(spec.field(mutable_config) ? "true" : "false"); },
          [&](const TextSpec& spec) {
            const std::string& current = spec.field(mutable_config);
            return spec.form == TextForm::kChoice ? current : Quoted(current);
          },
          [&](const NumberListSpec& spec) {
            return fmt::format("[{}]", fmt::join(spec.field(mutable_config), ", "));
          },
          [&](const AddressListSpec& spec) { return PrintList(spec.field(mutable_config)); },
          [&](const PairListSpec& spec) { return PrintList(spec.field(mutable_config)); },
          [&](const FormListSpec& spec) { return PrintList(spec.field(mutable_config)); }},
      value);
}

std::span<const KeySpec> KeySpecs() {
  static const std::vector<KeySpec> specs = MakeSpecs();
  return specs;
}

const KeySpec* FindKey(std::string_view key) {
  for (const KeySpec& spec : KeySpecs()) {
    if (spec.key == key) return &spec;
  }
  return nullptr;
}

std::string_view NewName(std::string_view old_key) {
  static constexpr std::pair<std::string_view, std::string_view> kRenamed[] = {
      {"attention.page_tokens", "attention.entry_tokens"},
  };
  for (const auto& [old_name, new_name] : kRenamed) {
    if (old_name == old_key) return new_name;
  }
  return "";
}

bool IsHostPort(std::string_view text, int min_port) {
  size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  std::string_view host = text.substr(0, colon);
  std::string_view digits = text.substr(colon + 1);
  // An IPv6 address stands in brackets.
  bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (!bracketed && host.find_first_of(":[]/ ") != std::string_view::npos) return false;
  if (host == "unix") return false;  // what gRPC takes for a socket's path
  int port = -1;
  auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  return error == std::errc() && end == digits.data() + digits.size() && port >= min_port && port <= 65535;
}

namespace {

const char* CheckSocketPath(const std::string& path) {
  if (path.empty() || path.front() != '/') return "is not an address";
  if (path.back() == '/') return "names a directory";
  return path.size() <= kMaxSocketPath ? nullptr : "is longer than a socket's path may be";
}

bool IsFileMode(const std::string& text) {
  const bool has_digits = text.size() == 3 || (text.size() == 4 && text.front() == '0');
  return has_digits && text.find_first_not_of("01234567") == std::string::npos;
}

bool IsIdentifier(const std::string& text) {
  return !text.empty() && text.size() <= 32 && text.front() >= 'a' && text.front() <= 'z' &&
         text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_-") == std::string::npos;
}

// The directory that a socket's file is to be made in.
const char* CheckSocketFolder(const std::string& path) {
  struct stat info = {};
  const std::string folder = path.substr(0, path.rfind('/') + 1);
  if (::stat(folder.c_str(), &info) != 0) return "its directory is not there";
  if (!S_ISDIR(info.st_mode)) return "its directory is none";
  if (::lstat(path.c_str(), &info) == 0 && !S_ISSOCK(info.st_mode)) return "is a file that is no socket";
  return nullptr;
}

}  // namespace

const char* CheckText(const TextSpec& spec, const std::string& text) {
  if (std::any_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; })) {
    return "has a control character";
  }
  switch (spec.form) {
    case TextForm::kAny:
      return nullptr;
    case TextForm::kName:
      return NameProblem(text).empty() ? nullptr : "is too long, or has a control character";
    case TextForm::kIdentifier:
      return IsIdentifier(text) ? nullptr : "is not a name";
    case TextForm::kChoice:
      return std::find(spec.choices.begin(), spec.choices.end(), text) != spec.choices.end()
                 ? nullptr
                 : "is not one of the choices";
    case TextForm::kOptionalListen:
      return text.empty() || IsHostPort(text, 0) ? nullptr : "is not an address";
    case TextForm::kListenAddress:
      if (const auto path = UnixSocketPath(text)) return CheckSocketPath(std::string(*path));
      return IsHostPort(text, 0) ? nullptr : "is not an address";
    case TextForm::kFileMode:
      return IsFileMode(text) ? nullptr : "is not a file mode";
    case TextForm::kModelFile:
    case TextForm::kProgram:
      return nullptr;
  }
  return nullptr;
}

const char* CheckFile(TextForm form, const std::string& path) {
  if (path.empty()) return nullptr;
  if (form == TextForm::kModelFile) return CheckAccess(path, R_OK, "cannot be read");
  if (form == TextForm::kListenAddress) {
    const auto socket = UnixSocketPath(path);
    return socket ? CheckSocketFolder(std::string(*socket)) : nullptr;
  }
  if (form == TextForm::kProgram) return CheckAccess(path, R_OK | X_OK, "cannot be run");
  return nullptr;
}

std::string Serialize(const Config& config) {
  std::string text;
  std::string_view last_section;
  for (const KeySpec& spec : KeySpecs()) {
    const size_t dot = spec.key.find('.');
    if (dot == std::string_view::npos) {
      text += fmt::format("{}: {}\n", spec.key, spec.Print(config));
      continue;
    }
    const std::string_view section = spec.key.substr(0, dot);
    if (section != last_section) text += fmt::format("{}:\n", section);
    last_section = section;
    text += fmt::format("  {}: {}\n", spec.key.substr(dot + 1), spec.Print(config));
  }
  return text;
}

std::vector<KeyDoc> Schema() {
  std::vector<KeyDoc> docs;
  const Config defaults;
  for (const KeySpec& spec : KeySpecs()) {
    docs.push_back({std::string(spec.key), spec.Type(), spec.Allowed(), spec.Print(defaults),
                    std::string(spec.text), spec.reloadable});
  }
  return docs;
}

bool IsReloadable(const std::string& key) {
  const KeySpec* spec = FindKey(key);
  return spec != nullptr && spec->reloadable;
}

std::vector<std::string> ApplyReload(const Config& from, Config* to) {
  std::vector<std::string> need_restart;
  Config source = from;
  for (const KeySpec& spec : KeySpecs()) {
    if (spec.Print(from) == spec.Print(*to)) continue;
    if (spec.reloadable) {
      std::visit([&](const auto& value) { value.field(*to) = value.field(source); }, spec.value);
    } else {
      need_restart.emplace_back(spec.key);
    }
  }
  return need_restart;
}

}  // namespace mnemo::config
