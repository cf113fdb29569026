// Writes docs/CONFIGURATION.md, from the schema, to standard output.
#include <cstdio>
#include <string>

#include "config/config.h"

namespace {

constexpr char kIntroduction[] =
    R"(<!-- Made by build/release/tools/print_schema; a test checks that it is current. -->
# Configuration

`mnemod --config FILE.yaml` reads one YAML file. Every key may be left out; then its default holds. The file is read strictly: an unknown
key, a wrong type, a value out of range, a key that is there twice or a file that is not there are errors, all of them told at once as
`FILE:LINE:COLUMN: key: what is wrong; allowed: ...`. `mnemod --check-config` reads the configuration, tells the errors and ends.

Any key can be set on the command line with `--set key.path=value`, the value written as in YAML (a list is `[a, b]`). It wins over the
file; of two, the later one. `--listen`, `--metrics-listen`, `--model` and `--workers` are short forms for `server.listen`,
`server.metrics_listen`, `model.path` and `workers.count`. All this works without `--config` too.

Workers and memory services that mnemod starts are given its configuration. Those that someone else starts take `--config FILE.yaml` and `--set`
as well: `mnemo-worker --help` and `mnemo-memory --help` tell their short forms. They read the same file and use what concerns them: a worker
`model.path`, `model.context_tokens`, `device`, `cpu` (all its threads are one worker's), `engine`, `attention.dense_layers`,
`attention.entry_tokens`, the first of `memory.addresses` with `placement`, `kv_residency`, `resident_tokens` and the times of waiting,
`workers.count` (workers that share the memory of the machine), `server.drain_timeout_ms` and `log`; a memory service `memory.device`,
`device_options`, `operation_timeout_ms`, `threads`, `index_bytes` and `quota_bytes`, and `log`. They do not look at files that other settings name.

On SIGHUP mnemod reads the file again and takes over the keys marked "reload"; it names those others that changed, which need a restart. A
file with errors changes nothing. Times are milliseconds (`_ms`), sizes bytes (`_bytes`).

`config/local.yaml` holds every key with its default; `config/node.yaml` is an inference node in production.

Sizes that are left to the daemon follow from the memory and the cores that it may use, which the log tells at the start. Memory is the
least of physical memory and what the control groups of the process and those above allow (`memory.max`, `memory.high`,
`memory.limit_in_bytes`); `ulimit -v` and `ulimit -d` bound each process besides. Cores are the least of affinity, cpuset and the whole cores
of CPU quotas. A context that does not fit the KV page pool is cut to what does, for `ListModels` and requests alike, with a line in the
log. A size that is set and cannot be had ends mnemod at the start with the name of the bound.
)";

std::string Escaped(const std::string& text) {
  std::string escaped;
  for (char c : text) escaped += c == '|' ? "\\|" : std::string(1, c);
  return escaped;
}

}  // namespace

int main() {
  std::fputs(kIntroduction, stdout);
  std::string section = "none yet";
  for (const mnemo::config::KeyDoc& doc : mnemo::config::Schema()) {
    size_t dot = doc.key.find('.');
    std::string of_key = dot == std::string::npos ? "" : doc.key.substr(0, dot);
    if (of_key != section) {
      section = of_key;
      std::printf("\n## %s\n\n| Key | Type | Default | Allowed | Meaning |\n|---|---|---|---|---|\n",
                  section.empty() ? doc.key.c_str() : section.c_str());
    }
    std::printf("| `%s` | %s | `%s` | %s | %s%s |\n", doc.key.c_str(), doc.type.c_str(),
                doc.default_value.c_str(), Escaped(doc.allowed).c_str(), Escaped(doc.text).c_str(),
                doc.reloadable ? " (reload)" : "");
  }
  return std::fflush(stdout) == 0 ? 0 : 1;
}
