// Writes docs/MODELS.md, from the table of metadata keys, to standard output.
#include <fmt/format.h>

#include <cstdio>
#include <string>

#include "server/model/metadata_keys.h"

namespace {

using mnemo::model::KeyUse;
using mnemo::model::MetadataKey;

constexpr char kIntroduction[] =
    R"(<!-- Made by build/release/tools/print_metadata_keys; a test checks that it is current. -->
# Models

GGUF v3 files of four architectures are served:

| Architecture | Families | Rotated pairs | Besides |
|---|---|---|---|
| `llama` | Llama 2 and 3, Mistral, SmolLM2 | neighbours | biases of queries, keys and values where the file has them; `rope_freqs.weight` divides frequencies |
| `qwen2` | Qwen 2 and 2.5 | halves | biases of queries, keys and values |
| `qwen3` | Qwen 3, dense | halves | a norm on each query and key |
| `gemma3` | Gemma 3, text | halves | norms on queries and keys and behind both parts of a layer, tanh GELU, embeddings times sqrt(embedding_length), sliding windows |

A file is read strictly, since metadata decides numbers. Each key below has a range and a default: that of the architecture's definition and of
llama.cpp, the field's reference loader. Where these two differ, or a key says half of something, the file is refused. A key that could decide
a number and is not supported refuses the file by name, and so does every tensor without a place. A key that is present and not used, or absent
and missed, is warned of once in the log when the model is loaded. The keys that decide nothing are read over.

A model in several files, NAME-00001-of-0000N.gguf to NAME-0000N-of-0000N.gguf, is served by the name of the first. All parts are opened at once
and held. Each says its place and the count of parts as its name does; each tensor is in one part, and as many are there as `split.tensors.count`
says. The first part's metadata holds for all: another part that contradicts it, or has a key outside `general.` that the first lacks, is refused.
`general.alignment` is each part's own; where only the first has it, the length of the file decides between it and 32. The model's id leaves out
the keys `split.`: it is that of the same model in one file. Parts of two models that are split alike look like one, with an id of its own.

Keys that begin with a dot have the architecture's name before it. `*` stands for any rest; the first line that fits counts.
)";

std::string Range(const MetadataKey& key) {
  if (key.max == 0 && key.min == 0) return "";
  return fmt::format("{} to {}", key.min, key.max);
}

std::string Neutral(const MetadataKey& key) {
  if (!key.neutral_text.empty()) return fmt::format("`{}`", key.neutral_text);
  if (key.type == "bool") return key.min == 0 ? "`false`" : "`true`";
  if (key.type == "any") return "0, false, empty";
  if (key.type.starts_with("array")) return "empty";
  return key.min == key.max ? fmt::format("{}", key.min) : fmt::format("{}, {}", key.min, key.max);
}

void PrintTable(KeyUse use, const char* title, const char* columns) {
  std::fputs(title, stdout);
  std::fputs(columns, stdout);
  for (const MetadataKey& key : mnemo::model::MetadataKeys()) {
    if (key.use != use) continue;
    const std::string name = fmt::format(
        "| `{}`{} | {} |", key.key,
        key.architectures.empty() ? std::string() : fmt::format(" ({})", key.architectures), key.type);
    std::string cells;
    if (use == KeyUse::kRead) cells = fmt::format(" {} | {} |", Range(key), key.absent);
    if (use == KeyUse::kNeutral) cells = fmt::format(" {} |", Neutral(key));
    std::fputs(fmt::format("{}{} {} |\n", name, cells, key.text).c_str(), stdout);
  }
}

}  // namespace

int main() {
  std::fputs(kIntroduction, stdout);
  PrintTable(KeyUse::kRead, "\n## Keys that are read\n\n",
             "| Key | Type | Range | Default | Effect |\n|---|---|---|---|---|\n");
  PrintTable(
      KeyUse::kNeutral, "\n## Keys that refuse a file\n\n",
      "| Key | Type | Values that change nothing and are taken | What it would be |\n|---|---|---|---|\n");
  PrintTable(KeyUse::kWarned, "\n## Keys that are warned of\n\n",
             "| Key | Type | Why it is not used |\n|---|---|---|\n");
  PrintTable(KeyUse::kIgnored, "\n## Keys that decide nothing\n\n", "| Key | Type | Why |\n|---|---|---|\n");
  return std::fflush(stdout) == 0 ? 0 : 1;
}
