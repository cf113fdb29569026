// Everything an operator can set. One YAML file, strict: an unknown key, a wrong type, a value out of range
// or a missing file is an error "FILE:LINE:COLUMN: key: what is wrong; what is allowed". The schema
// (schema.cc) holds for each key its type, range, default and one line of documentation; the loader, --set,
// --check-config and docs/CONFIGURATION.md all come from it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "devices/base/status.h"

namespace mnemo::config {

struct Config {
  struct Server {
    std::string listen = "127.0.0.1:50051";
    std::string listen_mode = "0660";               // octal; of the socket's file when listen is unix:/PATH
    int max_connections = 0;                        // clients connected at once; 0 = by the descriptors
    std::string metrics_listen = "127.0.0.1:9464";  // empty = no endpoint
    int64_t max_message_bytes = 16 << 20;           // [64 KiB, 1 GiB]
    int drain_timeout_ms = 30000;                   // SIGTERM, [0, 3,600,000]
    int health_grace_ms = 3000;                     // without a ready worker; [0, 3,600,000]
    // Tokens merged for a client that does not read; past them the stream is cancelled.
    int slow_reader_max_tokens = 65536;
    int slow_reader_timeout_ms = 60000;  // a write not taken for so long cancels the stream
    int stream_interval_ms = 40;         // tokens that come faster go out together; 0 = each by itself
    bool reflection = true;
  } server;
  struct Model {
    std::string path;                    // GGUF file; required to serve
    std::string name;                    // empty = general.name of the file
    std::string chat_template;           // empty = the file's; else a family's name or a file
    std::vector<int64_t> end_token_ids;  // empty = the family's
    int context_tokens = 0;              // 0 = the model's, or what fits the pool; [64, the model's]
  } model;
  // The process that renders chat templates.
  struct Text {
    std::string python = "/usr/bin/python3";   // with Jinja2
    int template_timeout_ms = 5000;            // one chat; past it the process is killed
    int64_t template_memory_bytes = 1 << 30;   // address space
    int64_t template_output_bytes = 64 << 20;  // text of one chat
  } text;
  std::string device = "cpu";  // cpu | reference
  struct Cpu {
    std::string isa = "auto";  // auto | baseline | avx2 | avx512 | avx512_vnni
    int threads = 0;           // of all local workers together; 0 = the cores that may be used
  } cpu;
  struct Workers {
    int count = 1;                       // child processes; [0, 64]
    std::vector<std::string> addresses;  // workers that others run: "host:port" or "unix:/path"
    std::string binary;                  // empty = mnemo-worker beside mnemod
    std::string runtime_dir;       // for sockets; empty = a private directory under $XDG_RUNTIME_DIR or /tmp
    int start_timeout_ms = 60000;  // from start to ready
    int heartbeat_interval_ms = 100;
    int hang_timeout_ms = 3000;    // no progress with work to do, or no heartbeat, for so long: killed
    int restart_backoff_ms = 100;  // doubles up to the next
    int restart_backoff_max_ms = 5000;
    int no_worker_timeout_ms = 30000;  // a request waits so long for a worker, then UNAVAILABLE
    int keepalive_time_ms = 10000;     // TCP links
    int keepalive_timeout_ms = 5000;
  } workers;
  struct Engine {
    int max_batch_rows = 512;      // rows of one step; [1, 8192]
    int max_running = 32;          // a worker; [1, 1024]
    int max_waiting = 256;         // a worker; [1, 65536]
    int reserve_tokens = 256;      // admission reserves prompt + min(max_tokens, this); [1, 1,048,576]
    std::string kv_type = "auto";  // auto | f16 | bf16 | q8
    // A worker's page pool; 0 = as many as four contexts take, all at most a quarter of memory.
    int64_t kv_cache_bytes = 0;
    bool prefix_cache = true;
    int max_sessions = 1024;
  } engine;
  // Defaults for what requests leave unsaid; the public protocol's comments say what each is. A request's own
  // figures win.
  struct Attention {
    std::string default_method = "dense";      // of requests without `attention`
    std::string sparse_method = "token_topk";  // of requests whose `attention` names no method
    int token_budget = 1024;
    int keep_first = 4;
    int keep_last = 0;
    int reuse_interval = 1;
    int first_stage_tokens = 0;  // 0 = 4 x token_budget
    int key_bits = 2;            // 2 | 4 | 8
    int dense_layers = 2;        // of the full-attention layers, the first ones attend to everything
    int entry_tokens = 16;       // of methods that select pages: 16 | 64
  } attention;
  struct Memory {
    int services = 1;                         // child processes; [0, 64]
    std::vector<std::string> addresses;       // services that others run: "unix:/path" or "ucx:host:port"
    std::string binary;                       // empty = mnemo-memory beside mnemod
    std::string device = "cpu";               // a kind of memory device; devices/memory/factory has them
    std::vector<std::string> device_options;  // KEY=VALUE, of what that kind alone understands
    int operation_timeout_ms = 1000;          // one operation of the device; then it is reset
    int threads = 0;                          // of each service; 0 = the cores that may be used
    int64_t index_bytes = 0;           // of each service's indexes; 0 = a quarter of memory over all services
    int64_t quota_bytes = 0;           // of these, of one worker's; 0 = an even share
    std::string placement = "inline";  // inline | memory_service, of requests that leave it to the server
    // worker | memory_service: where K and V of sparse layers are, of sequences longer than what the worker
    // keeps of them. memory_service: requests that leave their placement to the server are placed there, too.
    std::string kv_residency = "worker";
    // With it: positions of such sequences in each worker; 0 = four contexts, if they fit.
    int resident_tokens = 0;
    int kv_wait_ms = 10000;            // a request that lost its K and V waits so long for another service
    int round_trip_timeout_ms = 1000;  // a worker waits so long for an answer, then does without the service
    int start_timeout_ms = 10000;      // from start to ready
    int health_interval_ms = 500;
    int hang_timeout_ms = 5000;    // no answer to a question for its figures for so long: killed
    int restart_backoff_ms = 100;  // doubles up to the next
    int restart_backoff_max_ms = 5000;

    // Those started here and those that others run.
    size_t service_count() const { return static_cast<size_t>(services) + addresses.size(); }
  } memory;
  // Meters of joules, and a model where there is none. config/energy_texts.h has the forms of the lists.
  struct Energy {
    bool enabled = true;
    std::vector<std::string> sources = {"rapl", "perf", "nvml", "rocm_smi", "xrt"};
    int interval_ms = 100;  // between two readings; [10, 10,000]
    std::string powercap_root = "/sys/class/powercap";
    std::string nvml_library = "libnvidia-ml.so.1";
    std::string rocm_smi_library = "librocm_smi64.so";
    // Socket of mnemo-energy, for counters that mnemod may not read; empty = none.
    std::string socket = "/run/mnemo-energy/meters.sock";
    std::string idle_share = "busy";      // busy | none
    std::vector<std::string> idle_watts;  // "cpu0=12.5"
    std::vector<std::string> model;       // "cpu0 idle=12.5 busy=65"
  } energy;
  struct Limits {
    int max_running = 64;  // requests at workers
    int max_queued = 256;  // admitted, waiting for a worker; beyond: RESOURCE_EXHAUSTED
    // Prompt + max_tokens (or the reserve) of all admitted requests; 0 = 1,048,576, or a context if that is
    // more.
    int64_t max_tokens_in_flight = 0;
    int max_tokens = 0;           // of one request's output; 0 = what the context leaves
    int retry_pushback_ms = 500;  // grpc-retry-pushback-ms trailer of an overload
    int session_ttl_ms = 600000;  // a session unused for so long is forgotten
    int max_sessions = 4096;
  } limits;
  struct Log {
    std::string level = "info";   // trace | debug | info | warn | error
    std::string format = "text";  // text | json
    std::string file;             // empty = standard error
  } log;
};

// One value that wins over the file.
struct Override {
  std::string key;    // "engine.max_running"
  std::string value;  // as YAML; a string may stand without quotes
  // The command line's option that stands for the key, "--model": then a string is `value` as it is, quotes
  // included. Empty: "--set KEY". Errors name it as their place.
  std::string option = {};
};

struct LoadOptions {
  std::string file;                 // empty = defaults alone
  std::vector<Override> overrides;  // later ones win
  // Whether files and directories that values name must be there. A program that uses few of them looks at
  // those itself.
  bool check_files = true;
};

// INVALID_ARGUMENT or NOT_FOUND; the message holds every error found, a line each. Blocks to read the file.
absl::StatusOr<Config> Load(const LoadOptions& options);

// `config` as YAML, every key with its value, which Load reads back without a difference.
std::string Serialize(const Config& config);

// A YAML scalar in double quotes that stands for exactly these bytes.
std::string Quoted(std::string_view text);

// Keys that SIGHUP takes over into a running daemon; others need a restart.
bool IsReloadable(const std::string& key);
// The reloadable values of `from` put into `to`; the keys that differ but need a restart are returned.
std::vector<std::string> ApplyReload(const Config& from, Config* to);

struct KeyDoc {
  std::string key;      // "engine.max_running"
  std::string type;     // "integer", "string", "boolean", "list of integers", ...
  std::string allowed;  // "[1, 1024]", "f16 | bf16"
  std::string default_value;
  std::string text;  // one line
  bool reloadable = false;
};
std::vector<KeyDoc> Schema();

}  // namespace mnemo::config
