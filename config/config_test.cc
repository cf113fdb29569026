#include "config/config.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <set>

#include "config/energy_texts.h"
#include "config/schema.h"
#include "tests/support/temp_folder.h"

namespace mnemo::config {
namespace {

using Catch::Matchers::Contains;
using mnemo::testing::TempFolder;

absl::StatusOr<Config> LoadText(const std::string& text) {
  TempFolder dir;
  return Load({.file = dir.Write("a.yaml", text), .overrides = {}});
}

// The message with the directory taken away from every place.
std::string ErrorOf(const std::string& text) {
  absl::StatusOr<Config> config = LoadText(text);
  REQUIRE(!config.ok());
  REQUIRE(absl::IsInvalidArgument(config.status()));
  std::string shown;
  std::string message(config.status().message());
  size_t begin = 0;
  while (begin <= message.size()) {
    size_t end = std::min(message.find('\n', begin), message.size());
    std::string line = message.substr(begin, end - begin);
    size_t name = line.find("a.yaml");
    shown += (shown.empty() ? "" : "\n") + (name == std::string::npos ? line : line.substr(name));
    begin = end + 1;
  }
  return shown;
}

std::string OverrideError(const std::string& key, const std::string& value) {
  absl::StatusOr<Config> config = Load({.file = "", .overrides = {{key, value}}});
  REQUIRE(!config.ok());
  return std::string(config.status().message());
}

TEST_CASE("Nothing given is the defaults") {
  for (const char* text : {"", "# only a comment\n", "---\n", "{}", "engine:\nlog: {}\n"}) {
    CAPTURE(text);
    absl::StatusOr<Config> config = LoadText(text);
    REQUIRE(config.ok());
    CHECK(config->engine.max_running == Config().engine.max_running);
    CHECK(config->server.listen == "127.0.0.1:50051");
  }
  REQUIRE(Load({}).ok());
}

TEST_CASE("Values of every type are read") {
  absl::StatusOr<Config> config = LoadText(R"(
server: {listen: "0.0.0.0:1234", reflection: false, max_message_bytes: 1048576}
model:
  name: 7
  end_token_ids: [1, 2, 107]
device: reference
workers:
  count: 0
  addresses: ["host:7001", unix:/run/mnemo/w1.sock, "[::1]:7002"]
engine:
  kv_cache_bytes: 8589934592
log: {format: json}
)");
  REQUIRE(config.ok());
  CHECK(config->server.listen == "0.0.0.0:1234");
  CHECK_FALSE(config->server.reflection);
  CHECK(config->server.max_message_bytes == 1048576);
  CHECK(config->model.name == "7");
  CHECK(config->model.end_token_ids == std::vector<int64_t>{1, 2, 107});
  CHECK(config->device == "reference");
  CHECK(config->workers.addresses ==
        std::vector<std::string>{"host:7001", "unix:/run/mnemo/w1.sock", "[::1]:7002"});
  CHECK(config->engine.kv_cache_bytes == 8589934592);
  CHECK(config->log.format == "json");
}

TEST_CASE("An error names file, line, column, key and what is allowed") {
  CHECK(ErrorOf("engine:\n  max_running: many\n") ==
        "a.yaml:2:16: engine.max_running: \"many\" is not an integer; allowed: [1, 1024]");
  CHECK(ErrorOf("engine:\n  max_running: 0\n") ==
        "a.yaml:2:16: engine.max_running: 0 is out of range; allowed: [1, 1024]");
  CHECK(ErrorOf("engine:\n  max_running: \"3\"\n") ==
        "a.yaml:2:16: engine.max_running: \"3\" in quotes is not an integer; allowed: [1, 1024]");
  CHECK(ErrorOf("engine: {max_running: 1.5}") ==
        "a.yaml:1:23: engine.max_running: \"1.5\" is not an integer; allowed: [1, 1024]");
  CHECK(ErrorOf("engine: {max_running: [3]}") ==
        "a.yaml:1:23: engine.max_running: a list is not an integer; allowed: [1, 1024]");
  CHECK_THAT(ErrorOf("engine:\n  max_running:\nlog: {}"),
             Contains("engine.max_running: nothing is not an integer"));
  CHECK_THAT(ErrorOf("engine: {max_running: 99999999999999999999}"),
             Contains("is out of range; allowed: [1, 1024]"));
  CHECK(ErrorOf("engine: {prefix_cache: yes}") ==
        "a.yaml:1:24: engine.prefix_cache: \"yes\" is not a boolean; allowed: true | false");
  CHECK(ErrorOf("engine: {kv_type: f32}") ==
        "a.yaml:1:19: engine.kv_type: \"f32\" is not one of the choices; allowed: auto | f16 | bf16 | q8");
  CHECK(ErrorOf("attention: {key_bits: 3}") ==
        "a.yaml:1:23: attention.key_bits: 3 is not one of the choices; allowed: 2 | 4 | 8");
  CHECK(ErrorOf("attention: {key_bits: 16}") ==
        "a.yaml:1:23: attention.key_bits: 16 is out of range; allowed: 2 | 4 | 8");
  CHECK_THAT(ErrorOf("attention: {sparse_method: dense}"), Contains("is not one of the choices"));
  CHECK_THAT(ErrorOf("server: {listen: localhost}"),
             Contains("server.listen: \"localhost\" is not an address"));
  CHECK_THAT(ErrorOf("server: {listen: \"h:65536\"}"), Contains("is not an address; allowed: HOST:PORT"));
  CHECK_THAT(ErrorOf("server: {metrics_listen: \"unix:/run/mnemo.sock\"}"), Contains("is not an address"));
  CHECK_THAT(ErrorOf("server: {listen: \"unix:run/mnemo.sock\"}"), Contains("is not an address"));
  CHECK_THAT(ErrorOf("server: {listen: \"unix:/absent/mnemo.sock\"}"),
             Contains("its directory is not there"));
  CHECK_THAT(ErrorOf("server: {listen: \"unix:/" + std::string(107, 'x') + "\"}"),
             Contains("is longer than a socket's path may be"));
  CHECK(LoadText("server: {listen: \"unix:/tmp/mnemo.sock\", listen_mode: 0600}").ok());
  CHECK_THAT(ErrorOf("server: {listen_mode: 1777}"),
             Contains("\"1777\" is not a file mode; allowed: octal, 0000 to 0777"));
  CHECK_THAT(ErrorOf("server: {listen: \"unix:1234\"}"), Contains("is not an address"));
  CHECK_THAT(ErrorOf("model: {context_tokens: 5}"),
             Contains("5 is out of range; allowed: 0 or [64, 16777216]"));
  CHECK_THAT(ErrorOf("model: {end_token_ids: 3}"), Contains("\"3\" is not a list"));
  CHECK_THAT(ErrorOf("model: {end_token_ids: [3, -1]}"), Contains("-1 is out of range"));
  CHECK_THAT(ErrorOf("model: {name: [a]}"), Contains("model.name: a list is not a string"));
  CHECK_THAT(ErrorOf("model: {name: \"a\\nb\"}"), Contains("has a control character"));
  CHECK_THAT(ErrorOf("workers: {addresses: [\"h:0\"]}"), Contains("\"h:0\" is not an address"));
  CHECK_THAT(ErrorOf("workers: {addresses: [\"h:1\", \"h:1\"]}"), Contains("is there twice"));
  CHECK_THAT(ErrorOf("workers: {addresses: [\"ucx:h:1\"]}"), Contains("is not an address"));
  CHECK_THAT(ErrorOf("memory: {addresses: [\"h:1\"]}"), Contains("\"h:1\" is not an address"));
}

TEST_CASE("The place of an error in the structure") {
  CHECK(ErrorOf("server:\n  lisen: 127.0.0.1:1\n") ==
        "a.yaml:2:3: server.lisen: unknown key; did you mean server.listen?; allowed in server: listen, "
        "listen_mode, max_connections, metrics_listen, max_message_bytes, drain_timeout_ms, health_grace_ms, "
        "slow_reader_max_tokens, slow_reader_timeout_ms, "
        "stream_interval_ms, reflection");
  CHECK_THAT(ErrorOf("servr: {}\n"), Contains("a.yaml:1:1: servr: unknown key; did you mean server?"));
  CHECK_THAT(ErrorOf("log: {max_queued: 3}"), Contains("did you mean limits.max_queued?"));
  CHECK_THAT(ErrorOf("engine.max_running: 3"), Contains("did you mean engine.max_running?"));
  CHECK_THAT(ErrorOf("xyzzyplugh: 3"), !Contains("did you mean"));
  CHECK_THAT(ErrorOf("engine: [1, 2]\n"),
             Contains("a.yaml:1:9: engine: a list is not a section; allowed: a mapping"));
  CHECK_THAT(ErrorOf("- a\n"), Contains("a.yaml:1:1: a list; allowed: a mapping of server, model"));
  CHECK_THAT(ErrorOf("engine: {? [a] : 1}"), Contains("a list is not a key"));
  CHECK_THAT(ErrorOf("engine:\n  - {\n"), Contains("a.yaml:3:1: not valid YAML: "));
  CHECK_THAT(ErrorOf("log: {}\n---\nlog: {}\n"), Contains("a.yaml:2:1: not valid YAML: more text after"));
  // YAML::LoadAll never ends on this one; found by tests/fuzz/config_fuzz.cc.
  CHECK_THAT(ErrorOf(",og: &l {level: info}\n"), Contains("a.yaml:1:1"));
  CHECK_THAT(ErrorOf("log: {level: info}\nengine: {}\nlog: {level: warn}\n"),
             Contains("a.yaml:3:1: log: is there twice"));
  CHECK_THAT(ErrorOf("log:\n  level: info\n  level: warn\n"),
             Contains("a.yaml:3:3: log.level: is there twice"));
}

TEST_CASE("A key that was renamed is refused with its new name") {
  CHECK(ErrorOf("attention:\n  page_tokens: 16\n") ==
        "a.yaml:2:3: attention.page_tokens: is called attention.entry_tokens now; allowed: "
        "attention.entry_tokens");
  CHECK(OverrideError("attention.page_tokens", "64") ==
        "--set attention.page_tokens: attention.page_tokens: is called attention.entry_tokens now; allowed: "
        "attention.entry_tokens");
  for (const KeyDoc& doc : Schema()) CHECK(NewName(doc.key).empty());
}

TEST_CASE("All errors are told, up to a bound") {
  std::string error = ErrorOf("servr: 1\nengine:\n  max_running: x\n  kv_type: q4\nlog: 3\n");
  CHECK(std::count(error.begin(), error.end(), '\n') == 3);
  CHECK_THAT(error, Contains("a.yaml:1:1") && Contains("a.yaml:3:16") && Contains("a.yaml:4:12") &&
                        Contains("a.yaml:5:6"));
  std::string many;
  for (int i = 0; i < 200; ++i) many += "k" + std::to_string(i) + ": 1\n";
  CHECK_THAT(ErrorOf(many), Contains("and 150 more errors"));
}

TEST_CASE("Files that cannot be read") {
  TempFolder dir;
  absl::StatusOr<Config> absent = Load({.file = dir.path("absent.yaml"), .overrides = {}});
  CHECK(absl::IsNotFound(absent.status()));
  CHECK_THAT(std::string(absent.status().message()), Contains("absent.yaml"));
  absl::StatusOr<Config> folder = Load({.file = dir.path("."), .overrides = {}});
  CHECK(absl::IsInvalidArgument(folder.status()));
  absl::StatusOr<Config> large =
      Load({.file = dir.Write("large.yaml", std::string((1 << 20) + 1, '#')), .overrides = {}});
  CHECK_THAT(std::string(large.status().message()), Contains("large.yaml: too large; allowed: at most"));
}

TEST_CASE("Files that a value names must be there") {
  TempFolder dir;
  std::string model = dir.Write("m.gguf", "GGUF");
  std::string text = "model:\n  path: " + model + "\n";
  REQUIRE(LoadText(text).ok());
  CHECK_THAT(ErrorOf("model:\n  path: /absent/x.gguf\n"),
             Contains("a.yaml:2:9: model.path: \"/absent/x.gguf\" no such file"));
  CHECK_THAT(ErrorOf("model: {path: /tmp}"), Contains("model.path: \"/tmp\" is a directory"));
  CHECK_THAT(ErrorOf("workers: {binary: " + model + "}"),
             Contains("workers.binary") && Contains("cannot be run"));
}

TEST_CASE("A file that is replaced by an override need not be there") {
  TempFolder dir;
  std::string file = dir.Write("a.yaml", "model: {path: /absent/x.gguf}\n");
  CHECK(Load({.file = file, .overrides = {{"model.path", dir.Write("m.gguf", "GGUF")}}}).ok());
  CHECK_FALSE(Load({.file = file, .overrides = {}}).ok());
}

TEST_CASE("Overrides win over the file, later ones over earlier ones") {
  TempFolder dir;
  std::string file = dir.Write("a.yaml", "engine: {max_running: 3, max_waiting: 4}\n");
  absl::StatusOr<Config> config = Load({.file = file,
                                        .overrides = {{"engine.max_running", "5"},
                                                      {"engine.max_running", "6"},
                                                      {"server.metrics_listen", ""},
                                                      {"server.listen", "[::1]:50051"},
                                                      {"log.file", "/tmp/a: b #c"},
                                                      {"model.name", "'quoted'"},
                                                      {"model.end_token_ids", "[1, 2]"},
                                                      {"device", "reference"}}});
  REQUIRE(config.ok());
  CHECK(config->engine.max_running == 6);
  CHECK(config->engine.max_waiting == 4);
  CHECK(config->server.metrics_listen.empty());
  CHECK(config->server.listen == "[::1]:50051");
  CHECK(config->log.file == "/tmp/a: b #c");
  CHECK(config->model.name == "quoted");
  CHECK(config->model.end_token_ids == std::vector<int64_t>{1, 2});
  CHECK(config->device == "reference");
}

TEST_CASE("Errors in overrides") {
  CHECK(OverrideError("engine.max_running", "-3") ==
        "--set engine.max_running: engine.max_running: -3 is out of range; allowed: [1, 1024]");
  CHECK_THAT(OverrideError("engine.max_runing", "3"),
             Contains("--set engine.max_runing: ") && Contains("did you mean engine.max_running?"));
  CHECK_THAT(OverrideError("engine", "3"), Contains("--set engine: a section, not a key"));
  CHECK_THAT(OverrideError("nothing.here", "3"), Contains("nothing.here: unknown key"));
  CHECK_THAT(OverrideError("engine.max_running", ""), Contains("nothing is not an integer"));
  CHECK_THAT(OverrideError("engine.max_running", "{"), Contains("is not valid YAML"));
  CHECK_THAT(OverrideError("engine.max_running", "3\n--- 4"), Contains("more text after"));
  CHECK_THAT(OverrideError("model.path", "/absent.gguf"), Contains("\"/absent.gguf\" no such file"));
}

TEST_CASE("The value of a short form is taken as it stands, and errors name the form") {
  const auto load = [](const std::string& key, const std::string& value) {
    return Load({.file = "", .overrides = {{key, value, "--short"}}});
  };
  CHECK(load("log.file", "'a'")->log.file == "'a'");
  CHECK(load("log.file", "[b]: #")->log.file == "[b]: #");
  CHECK(load("engine.max_running", "7")->engine.max_running == 7);
  CHECK(load("engine.max_running", "0").status().message() ==
        "--short: engine.max_running: 0 is out of range; allowed: [1, 1024]");
}

TEST_CASE("Options of a memory device are KEY=VALUE, no key twice") {
  CHECK(LoadText("memory: {device: my-card_2, device_options: [a=1, 'b=', c==]}").ok());
  CHECK_THAT(ErrorOf("memory: {device_options: [a]}"),
             Contains("\"a\" is not KEY=VALUE; allowed: at most 32 of KEY=VALUE"));
  CHECK_THAT(ErrorOf("memory: {device_options: ['=a']}"), Contains("\"=a\" is not KEY=VALUE"));
  CHECK_THAT(ErrorOf("memory: {device_options: [a=1, a=2]}"), Contains("\"a\" is there twice"));
  CHECK_THAT(ErrorOf("memory: {device_options: [\"a=\\n\"]}"), Contains("has a control character"));
  CHECK_THAT(ErrorOf("memory: {device_options: a=1}"), Contains("is not a list"));
  for (const char* name : {"''", "A", "1a", "'a b'", "a.b"}) {
    INFO(name);
    CHECK_THAT(ErrorOf(std::string("memory: {device: ") + name + "}"), Contains("is not a name"));
  }
}

TEST_CASE("Lists of energy name the element that is wrong, and what is allowed") {
  const absl::StatusOr<Config> config = LoadText(
      "energy: {sources: [perf], idle_watts: [cpu0=12.5, gpu10=0], model: [\"cpu1 busy=65 idle=12\", dram0  "
      "idle=0 busy=0.5, 'gpu3 idle=30 operation=2e-12 byte=6e-11', 'cpu0 idle=0 byte=0.001 operation=0']}");
  REQUIRE(config.ok());
  const absl::StatusOr<std::vector<DeviceWatts>> idle = ParseIdleWatts(config->energy.idle_watts);
  REQUIRE(idle.ok());
  CHECK((*idle)[0].device == "cpu0");
  CHECK((*idle)[0].watts == 12.5);
  CHECK((*idle)[1].device == "gpu10");
  const absl::StatusOr<std::vector<ModelFigures>> model = ParseEnergyModel(config->energy.model);
  REQUIRE(model.ok());
  CHECK((*model)[0].device == "cpu1");
  CHECK((*model)[0].idle_watts == 12);
  CHECK((*model)[0].busy_watts == 65);
  CHECK((*model)[1].idle_watts == 0);
  CHECK_FALSE((*model)[1].counts_work());
  CHECK((*model)[2].device == "gpu3");
  CHECK((*model)[2].counts_work());
  CHECK((*model)[2].idle_watts == 30);
  CHECK((*model)[2].joules_per_byte == 6e-11);
  CHECK((*model)[2].joules_per_operation == 2e-12);
  CHECK((*model)[3].joules_per_byte == kMaxWorkJoules);

  CHECK_THAT(
      ErrorOf("energy:\n  sources: [rapl, ipmi]\n"),
      Contains("a.yaml:2:12: energy.sources: \"ipmi\" is no source; allowed: at most 5 of rapl | perf"));
  CHECK_THAT(ErrorOf("energy: {sources: [rapl, rapl]}"), Contains("\"rapl\" is there twice"));
  CHECK_THAT(ErrorOf("energy: {sources: rapl}"), Contains("is not a list"));
  CHECK_THAT(ErrorOf("energy: {idle_watts: [cpu0]}"),
             Contains("\"cpu0\" is not DEVICE=WATTS; allowed: at most 64 of DEVICE=WATTS"));
  for (const char* device : {"cpu", "cpu01", "cpu-1", "cpu1024", "tpu0", "0", ""}) {
    INFO(device);
    CHECK_THAT(ErrorOf(fmt::format("energy: {{idle_watts: ['{}=1']}}", device)), Contains("names no device"));
  }
  for (const char* watts : {"", "-1", "1e2", "nan", "inf", "100000.1", "1W"}) {
    INFO(watts);
    CHECK_THAT(ErrorOf(fmt::format("energy: {{idle_watts: ['cpu0={}']}}", watts)),
               Contains("no number of watts in [0, 100000]"));
    CHECK_THAT(ErrorOf(fmt::format("energy: {{model: ['cpu0 idle={} busy=9']}}", watts)),
               Contains("no number of watts in [0, 100000]"));
  }
  for (const char* joules : {"", "-1e-9", "nan", "inf", "0.0011", "1e-3J", "1e-400"}) {
    INFO(joules);
    CHECK_THAT(ErrorOf(fmt::format("energy: {{model: ['cpu0 idle=1 byte={} operation=0']}}", joules)),
               Contains("energy.model") && Contains("no number of joules in [0, 0.001]"));
  }
  CHECK_THAT(ErrorOf("energy: {model: [tpu0 idle=1 byte=1e-9 operation=0]}"),
             Contains("names no device: cpuN, dramN, gpuN or fpgaN"));
  CHECK_THAT(ErrorOf("energy: {model: [cpu0 idle=1 byte=0 operation=0]}"),
             Contains("needs a byte or an operation above 0"));
  for (const char* figures : {"idle=1 byte=1e-9", "idle=1 busy=2 byte=1e-9", "byte=1e-9 operation=1e-9"}) {
    INFO(figures);
    CHECK_THAT(ErrorOf(fmt::format("energy: {{model: ['cpu0 {}']}}", figures)),
               Contains("needs idle and busy, or idle, byte and operation"));
  }
  CHECK_THAT(ErrorOf("energy: {idle_watts: [cpu0=1, cpu0=2]}"), Contains("\"cpu0\" is there twice"));
  CHECK_THAT(ErrorOf("energy: {model: [cpu0=1]}"), Contains("does not have the form"));
  CHECK_THAT(ErrorOf("energy: {model: [gpu0 idle=1 busy=2]}"), Contains("names no device: cpuN or dramN"));
  CHECK_THAT(ErrorOf("energy: {model: [cpu0 idle=1 idle=2]}"), Contains("a figure twice"));
  CHECK_THAT(ErrorOf("energy: {model: [cpu0 idle=1 load=2]}"),
             Contains("none of idle, busy, byte and operation"));
  CHECK_THAT(ErrorOf("energy: {model: [cpu0 idle=3 busy=2]}"), Contains("not below idle"));
  CHECK_THAT(ErrorOf("energy: {model: [cpu0 idle=1 busy=2, cpu0 idle=1 busy=2]}"), Contains("there twice"));
}

TEST_CASE("What must hold between keys") {
  CHECK_THAT(ErrorOf("workers:\n  count: 0\n"), Contains("a.yaml:2:10: workers.count: 0 leaves no worker"));
  CHECK_THAT(ErrorOf("workers: {restart_backoff_ms: 500, restart_backoff_max_ms: 400}"),
             Contains("restart_backoff_max_ms: 400 is too small; allowed: at least") && Contains("500"));
  CHECK_THAT(ErrorOf("workers: {hang_timeout_ms: 150}"),
             Contains("workers.hang_timeout_ms: 150 is too small"));
  CHECK_THAT(ErrorOf("server: {listen: \"h:1\", metrics_listen: \"h:1\"}"), Contains("is server.listen too"));
  CHECK_THAT(ErrorOf("memory: {restart_backoff_ms: 500, restart_backoff_max_ms: 499}"),
             Contains("memory.restart_backoff_max_ms: 499 is too small") && Contains("500"));
  CHECK_THAT(ErrorOf("memory: {services: 0, placement: memory_service}"),
             Contains("a.yaml:1:34: memory.placement: memory_service, and memory.services is 0"));
  CHECK(LoadText("memory: {services: 1, placement: memory_service}").ok());
  CHECK(LoadText("memory: {services: 0, placement: memory_service, addresses: ['unix:/run/m.sock']}").ok());
  CHECK_THAT(ErrorOf("attention: {token_budget: 100, keep_first: 30, keep_last: 7}"),
             Contains("attention.token_budget: 100 is too small") && Contains("101"));
  CHECK(LoadText("attention: {token_budget: 101, keep_first: 30, keep_last: 7}").ok());
  CHECK_THAT(ErrorOf("attention: {first_stage_tokens: 1023}"),
             Contains("attention.first_stage_tokens: 1023 is too small") && Contains("1024"));
  CHECK(LoadText("attention: {first_stage_tokens: 1024}").ok());
  CHECK(LoadText("server: {listen: \"h:0\", metrics_listen: \"h:0\"}").ok());
  CHECK_THAT(OverrideError("workers.count", "0"),
             Contains("--set workers.count: workers.count: 0 leaves no worker"));
}

TEST_CASE("Strange YAML is an error or is read, never worse") {
  CHECK_THAT(ErrorOf(std::string(2000, '[')), Contains("a.yaml:"));
  CHECK_THAT(ErrorOf("a: &a [*a]\n"), Contains("unknown key"));
  CHECK_THAT(ErrorOf("engine: &e {max_running: 3}\n<<: *e\n"), Contains("<<: unknown key"));
  CHECK_THAT(ErrorOf(std::string("log: {level: \0}", 15)), Contains("a.yaml:1:"));
  CHECK_THAT(ErrorOf("log: !!binary x\n"), Contains("is not a section"));
}

TEST_CASE("The schema documents each key once, and its defaults are in range") {
  std::set<std::string> keys;
  for (const KeyDoc& doc : Schema()) {
    CAPTURE(doc.key);
    CHECK(keys.insert(doc.key).second);
    CHECK(!doc.text.empty());
    CHECK(doc.text.back() == '.');
    CHECK(!doc.type.empty());
    CHECK(!doc.allowed.empty());
    absl::StatusOr<Config> config = Load({.file = "", .overrides = {{doc.key, doc.default_value}}});
    CHECK(config.ok());
  }
  CHECK(keys.size() > 40);
}

TEST_CASE("A reload takes the reloadable keys and names the others that differ") {
  Config from;
  from.limits.max_tokens = 5;
  from.log.level = "debug";
  from.engine.max_running = 7;
  from.model.end_token_ids = {3};
  Config to;
  CHECK(ApplyReload(from, &to) == std::vector<std::string>{"model.end_token_ids", "engine.max_running"});
  CHECK(to.limits.max_tokens == 5);
  CHECK(to.log.level == "debug");
  CHECK(to.engine.max_running == Config().engine.max_running);
  CHECK(IsReloadable("limits.max_queued"));
  CHECK_FALSE(IsReloadable("engine.max_running"));
  CHECK_FALSE(IsReloadable("nonsense"));
}

}  // namespace
}  // namespace mnemo::config
