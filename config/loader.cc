#include "config/loader.h"

#include <absl/status/status.h>
#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <fstream>
#include <numeric>
#include <optional>
#include <set>
#include <sstream>
#include <type_traits>

#include "config/schema.h"

namespace mnemo::config {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;
constexpr size_t kMaxErrors = 50;
constexpr size_t kMaxShownChars = 80;

// Levenshtein's edit distance.
size_t Distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      size_t substitute = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row.back();
}

std::string_view Section(std::string_view key) {
  size_t dot = key.find('.');
  return dot == std::string_view::npos ? std::string_view() : key.substr(0, dot);
}
std::string_view LastName(std::string_view key) {
  size_t dot = key.rfind('.');
  return dot == std::string_view::npos ? key : key.substr(dot + 1);
}

std::vector<std::string_view> Sections() {
  std::vector<std::string_view> sections;
  for (const KeySpec& spec : KeySpecs()) {
    std::string_view section = Section(spec.key);
    if (!section.empty() && (sections.empty() || sections.back() != section)) sections.push_back(section);
  }
  return sections;
}

bool IsSection(std::string_view name) {
  std::vector<std::string_view> sections = Sections();
  return std::find(sections.begin(), sections.end(), name) != sections.end();
}

// Names allowed in a section; in the empty one, sections and the keys outside any.
std::vector<std::string_view> NamesIn(std::string_view section) {
  std::vector<std::string_view> names;
  if (section.empty()) names = Sections();
  for (const KeySpec& spec : KeySpecs()) {
    if (Section(spec.key) == section) names.push_back(LastName(spec.key));
  }
  return names;
}

// The probable meaning of an unknown key: a name of the same section, or the same name in another.
std::string Suggestion(std::string_view section, std::string_view name) {
  std::string_view best;
  size_t best_distance = std::max<size_t>(2, name.size() / 3) + 1;
  auto consider = [&](std::string_view candidate, std::string_view compared) {
    size_t distance = Distance(name, compared);
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  };
  if (name.size() > 100) return "";
  for (const KeySpec& spec : KeySpecs()) {
    if (Section(spec.key) == section) consider(spec.key, LastName(spec.key));
  }
  if (section.empty()) {
    for (std::string_view candidate : Sections()) consider(candidate, candidate);
  }
  for (const KeySpec& spec : KeySpecs()) {
    if (name == LastName(spec.key) || name == spec.key) consider(spec.key, name);
  }
  return best.empty() ? "" : fmt::format("; did you mean {}?", best);
}

std::string Shown(const std::string& text) {
  std::string shown = "\"";
  for (char c : text.substr(0, kMaxShownChars)) shown += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
  return shown + (text.size() > kMaxShownChars ? "...\"" : "\"");
}

std::string Shown(const YAML::Node& node) {
  if (node.IsScalar()) return Shown(node.Scalar());
  if (node.IsSequence()) return "a list";
  if (node.IsMap()) return "a mapping";
  return "nothing";
}

// A value or what is wrong with it.
template <typename T>
struct Parsed {
  std::optional<T> value;
  std::string error;
};

bool IsQuoted(const YAML::Node& node) { return node.Tag() == "!"; }

Parsed<int64_t> ParseInteger(const YAML::Node& node) {
  if (!node.IsScalar() || IsQuoted(node)) {
    return {{}, fmt::format("{}{} is not an integer", Shown(node), node.IsScalar() ? " in quotes" : "")};
  }
  const std::string& text = node.Scalar();
  int64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::result_out_of_range) return {{}, fmt::format("{} is out of range", Shown(text))};
  if (error != std::errc() || end != text.data() + text.size()) {
    return {{}, fmt::format("{} is not an integer", Shown(text))};
  }
  return {value, ""};
}

Parsed<std::string> ParseText(const YAML::Node& node) {
  if (!node.IsScalar()) {
    return {{},
            fmt::format("{} is not a string{}", Shown(node),
                        node.IsMap() || node.IsSequence() ? "" : " (write \"\" for an empty one)")};
  }
  return {node.Scalar(), ""};
}

// Each Assign writes one value into `config` and returns "" or what is wrong.
template <typename T>
std::string Assign(const NumberSpec<T>& spec, const YAML::Node& node, Config* config) {
  Parsed<int64_t> number = ParseInteger(node);
  if (!number.value) return number.error;
  int64_t value = *number.value;
  bool special = spec.special >= 0 && value == spec.special;
  if (!special && (value < spec.min || value > spec.max)) return fmt::format("{} is out of range", value);
  if (!spec.choices.empty() &&
      std::find(spec.choices.begin(), spec.choices.end(), value) == spec.choices.end()) {
    return fmt::format("{} is not one of the choices", value);
  }
  spec.field(*config) = static_cast<T>(value);
  return "";
}

std::string Assign(const BoolSpec& spec, const YAML::Node& node, Config* config) {
  bool is_true = node.IsScalar() && !IsQuoted(node) && node.Scalar() == "true";
  bool is_false = node.IsScalar() && !IsQuoted(node) && node.Scalar() == "false";
  if (!is_true && !is_false) return fmt::format("{} is not a boolean", Shown(node));
  spec.field(*config) = is_true;
  return "";
}

std::string Assign(const TextSpec& spec, const YAML::Node& node, Config* config) {
  Parsed<std::string> text = ParseText(node);
  if (!text.value) return text.error;
  if (const char* error = CheckText(spec, *text.value)) {
    return fmt::format("{} {}", Shown(*text.value), error);
  }
  spec.field(*config) = *text.value;
  return "";
}

// Hands each element of a list of at most `max_count` to `take`, up to its first error.
template <typename Take>
std::string ForEachElement(const YAML::Node& node, size_t max_count, Take take) {
  if (!node.IsSequence()) return fmt::format("{} is not a list", Shown(node));
  if (node.size() > max_count) return fmt::format("a list of {} is too long", node.size());
  for (const YAML::Node& element : node) {
    if (std::string error = take(element); !error.empty()) return error;
  }
  return "";
}

// Reads a list of texts; `check` returns the error of one, or nothing.
template <typename Spec, typename Check>
std::string ReadTexts(const Spec& spec, const YAML::Node& node, Check check,
                      std::vector<std::string>* texts) {
  return ForEachElement(node, spec.max_count, [&](const YAML::Node& element) -> std::string {
    Parsed<std::string> text = ParseText(element);
    if (!text.value) return text.error;
    if (std::string error = check(*text.value); !error.empty()) return error;
    texts->push_back(std::move(*text.value));
    return "";
  });
}

std::string CheckPlainText(const std::string& text) {
  const char* const error = CheckText({nullptr, TextForm::kAny}, text);
  return error == nullptr ? "" : fmt::format("{} {}", Shown(text), error);
}

std::string Assign(const NumberListSpec& spec, const YAML::Node& node, Config* config) {
  std::vector<int64_t> values;
  std::string error = ForEachElement(node, spec.max_count, [&](const YAML::Node& element) -> std::string {
    Parsed<int64_t> number = ParseInteger(element);
    if (!number.value) return number.error;
    if (*number.value < spec.min || *number.value > spec.max) {
      return fmt::format("{} is out of range", *number.value);
    }
    values.push_back(*number.value);
    return "";
  });
  if (error.empty()) spec.field(*config) = std::move(values);
  return error;
}

std::string Assign(const AddressListSpec& spec, const YAML::Node& node, Config* config) {
  std::vector<std::string> values;
  const auto check = [&](const std::string& text) -> std::string {
    const bool is_unix = text.rfind("unix:/", 0) == 0 && text.size() > strlen("unix:/");
    const std::string_view prefix = spec.network_prefix;
    const bool is_network =
        text.rfind(prefix, 0) == 0 && IsHostPort(std::string_view(text).substr(prefix.size()), 1);
    if (!is_unix && !is_network) return fmt::format("{} is not an address", Shown(text));
    if (std::find(values.begin(), values.end(), text) != values.end()) {
      return fmt::format("{} is there twice", Shown(text));
    }
    return "";
  };
  std::string error = ReadTexts(spec, node, check, &values);
  if (error.empty()) spec.field(*config) = std::move(values);
  return error;
}

std::string Assign(const PairListSpec& spec, const YAML::Node& node, Config* config) {
  std::vector<std::string> values;
  std::set<std::string> keys;
  const auto check = [&](const std::string& text) -> std::string {
    if (std::string error = CheckPlainText(text); !error.empty()) return error;
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) return fmt::format("{} is not KEY=VALUE", Shown(text));
    const std::string key = text.substr(0, equals);
    return keys.insert(key).second ? "" : fmt::format("{} is there twice", Shown(key));
  };
  std::string error = ReadTexts(spec, node, check, &values);
  if (error.empty()) spec.field(*config) = std::move(values);
  return error;
}

std::string Assign(const FormListSpec& spec, const YAML::Node& node, Config* config) {
  std::vector<std::string> values;
  std::string error = ReadTexts(spec, node, CheckPlainText, &values);
  if (!error.empty()) return error;
  if (const absl::Status status = spec.check(values); !status.ok()) return std::string(status.message());
  spec.field(*config) = std::move(values);
  return "";
}

// Hears nothing but where a document begins.
class DocumentStart final : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark& mark) override { mark_ = mark; }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {
  }
  void OnMapEnd() override {}
  const YAML::Mark& mark() const { return mark_; }

 private:
  YAML::Mark mark_;
};

// The one document of a text. YAML::Load drops what follows the first document, and YAML::LoadAll (0.7) never
// ends on some texts, so what follows is looked for here. Throws YAML::Exception.
YAML::Node LoadOne(const std::string& text) {
  std::istringstream in(text);
  YAML::Parser parser(in);
  DocumentStart start;
  if (parser.HandleNextDocument(start) && parser.HandleNextDocument(start)) {
    throw YAML::ParserException(start.mark(), "more text after the document, or a second document");
  }
  return YAML::Load(text);
}

class Loader {
 public:
  void ReadFile(const std::string& path, const std::string& text) {
    file_ = path;
    YAML::Node root;
    try {
      root = LoadOne(text);
    } catch (const YAML::Exception& error) {
      AddError(Place(error.mark), "not valid YAML: " + error.msg);
      return;
    }
    if (root.IsNull()) return;
    if (!root.IsMap()) {
      AddError(Place(root.Mark()),
               fmt::format("{}; allowed: a mapping of {}", Shown(root), fmt::join(NamesIn(""), ", ")));
      return;
    }
    ReadMap("", root);
  }

  void Apply(const Override& override_value) {
    const auto& [key, value, option] = override_value;
    const std::string place = option.empty() ? "--set " + key : option;
    const KeySpec* spec = FindKey(key);
    if (spec == nullptr) {
      if (IsSection(key)) {
        AddError(place, fmt::format("a section, not a key; allowed: {}.NAME with NAME one of {}", key,
                                    fmt::join(NamesIn(key), ", ")));
        return;
      }
      std::string_view section = Section(key);
      bool known = !section.empty() && IsSection(section);
      AddUnknown(place, known ? section : std::string_view(), known ? LastName(key) : key);
      return;
    }
    YAML::Node node;
    // An unquoted string is taken as it stands: paths and addresses need no second quoting for YAML.
    const bool quoted = option.empty() && !value.empty() && (value[0] == '"' || value[0] == '\'');
    if (std::holds_alternative<TextSpec>(spec->value) && !quoted) {
      node = YAML::Node(value);
    } else {
      try {
        node = LoadOne(value);
      } catch (const YAML::Exception& error) {
        AddError(place, fmt::format("{} is not valid YAML: {}; allowed: {}", Shown(value), error.msg,
                                    spec->Allowed()));
        return;
      }
    }
    Set(*spec, node, place);
  }

  // Files that the winning values name. An override may replace a path that is not there.
  void CheckFiles() {
    for (const KeySpec& spec : KeySpecs()) {
      const auto* text = std::get_if<TextSpec>(&spec.value);
      if (text == nullptr) continue;
      const std::string& path = text->field(config_);
      if (const char* error = CheckFile(text->form, path)) {
        AddError(PlaceOf(spec.key),
                 fmt::format("{}: {} {}; allowed: {}", spec.key, Shown(path), error, spec.Allowed()));
      }
    }
  }

  // Conditions between keys. Not checked after an error, which it would only repeat.
  void CheckTogether() {
    if (!errors_.empty()) return;
    const Config& c = config_;
    if (c.workers.count == 0 && c.workers.addresses.empty()) {
      AddError(PlaceOf("workers.count"),
               "workers.count: 0 leaves no worker; allowed: at least one here or in workers.addresses");
    }
    CheckBackoff("workers", c.workers.restart_backoff_ms, c.workers.restart_backoff_max_ms);
    CheckBackoff("memory", c.memory.restart_backoff_ms, c.memory.restart_backoff_max_ms);
    const bool has_services = c.memory.service_count() > 0;
    // Workers that others run may have a service of their own.
    if (c.memory.placement == "memory_service" && !has_services && c.workers.addresses.empty()) {
      AddError(PlaceOf("memory.placement"),
               "memory.placement: memory_service, and memory.services is 0 and memory.addresses empty; "
               "allowed: inline");
    }
    if (c.memory.kv_residency == "memory_service" && !has_services) {
      AddError(PlaceOf("memory.kv_residency"),
               "memory.kv_residency: memory_service, and there is no memory service; allowed: worker");
    }
    if (c.workers.hang_timeout_ms < 2 * c.workers.heartbeat_interval_ms) {
      AddError(PlaceOf("workers.hang_timeout_ms"),
               fmt::format("workers.hang_timeout_ms: {} is too small; allowed: at least twice "
                           "workers.heartbeat_interval_ms, {}",
                           c.workers.hang_timeout_ms, 2 * c.workers.heartbeat_interval_ms));
    }
    const int least_budget = c.attention.keep_first + c.attention.keep_last + 64;
    if (c.attention.token_budget < least_budget) {
      AddError(
          PlaceOf("attention.token_budget"),
          fmt::format("attention.token_budget: {} is too small; allowed: at least attention.keep_first + "
                      "attention.keep_last + 64, {}",
                      c.attention.token_budget, least_budget));
    }
    if (c.attention.first_stage_tokens > 0 && c.attention.first_stage_tokens < c.attention.token_budget) {
      AddError(PlaceOf("attention.first_stage_tokens"),
               fmt::format("attention.first_stage_tokens: {} is too small; allowed: 0, or at least "
                           "attention.token_budget, {}",
                           c.attention.first_stage_tokens, c.attention.token_budget));
    }
    bool any_port = c.server.listen.ends_with(":0");
    if (c.server.listen == c.server.metrics_listen && !any_port) {
      AddError(PlaceOf("server.metrics_listen"),
               fmt::format("server.metrics_listen: \"{}\" is server.listen too; allowed: another address",
                           c.server.metrics_listen));
    }
  }

  absl::StatusOr<Config> Finish() {
    if (errors_.empty()) return config_;
    if (errors_.size() > kMaxErrors) {
      size_t more = errors_.size() - kMaxErrors;
      errors_.resize(kMaxErrors);
      errors_.push_back(fmt::format("and {} more errors", more));
    }
    return InvalidArgument("{}", fmt::join(errors_, "\n"));
  }

 private:
  void CheckBackoff(std::string_view section, int first_ms, int longest_ms) {
    if (longest_ms >= first_ms) return;
    const std::string key = fmt::format("{}.restart_backoff_max_ms", section);
    AddError(PlaceOf(key), fmt::format("{}: {} is too small; allowed: at least {}.restart_backoff_ms, {}",
                                       key, longest_ms, section, first_ms));
  }

  void ReadMap(std::string_view section, const YAML::Node& map) {
    std::set<std::string> seen;
    for (const auto& entry : map) {
      const YAML::Node& name_node = entry.first;
      const YAML::Node& value = entry.second;
      std::string place = Place(name_node.Mark());
      if (!name_node.IsScalar()) {
        AddError(place, fmt::format("{} is not a key; allowed: {}", Shown(name_node),
                                    fmt::join(NamesIn(section), ", ")));
        continue;
      }
      const std::string& name = name_node.Scalar();
      std::string key = section.empty() ? name : fmt::format("{}.{}", section, name);
      bool is_section = section.empty() && IsSection(name);
      // A dotted name at the top would find the key it spells; files have one form only.
      const KeySpec* spec = section.empty() && name.find('.') != std::string::npos ? nullptr : FindKey(key);
      if (!is_section && spec == nullptr) {
        AddUnknown(place, section, name);
      } else if (!seen.insert(name).second) {
        AddError(place, fmt::format("{}: is there twice; allowed: once", key));
      } else if (is_section) {
        ReadSection(name, value);
      } else {
        Set(*spec, value, Place(value.Mark()));
      }
    }
  }

  void ReadSection(const std::string& name, const YAML::Node& value) {
    if (value.IsNull()) return;
    if (value.IsMap()) {
      ReadMap(name, value);
    } else {
      AddError(Place(value.Mark()), fmt::format("{}: {} is not a section; allowed: a mapping of {}", name,
                                                Shown(value), fmt::join(NamesIn(name), ", ")));
    }
  }

  void Set(const KeySpec& spec, const YAML::Node& node, const std::string& place) {
    std::string error =
        std::visit([&](const auto& value) { return Assign(value, node, &config_); }, spec.value);
    if (!error.empty()) {
      AddError(place, fmt::format("{}: {}; allowed: {}", spec.key, error, spec.Allowed()));
      return;
    }
    std::erase_if(places_, [&](const auto& entry) { return entry.first == spec.key; });
    places_.emplace_back(spec.key, place);
  }

  void AddUnknown(const std::string& place, std::string_view section, std::string_view name) {
    std::string key = section.empty() ? std::string(name) : fmt::format("{}.{}", section, name);
    if (const std::string_view new_name = NewName(key); !new_name.empty()) {
      AddError(place, fmt::format("{}: is called {} now; allowed: {}", key, new_name, new_name));
      return;
    }
    AddError(place,
             fmt::format("{}: unknown key{}; allowed{}: {}", key.substr(0, 2 * kMaxShownChars),
                         Suggestion(section, name), section.empty() ? "" : fmt::format(" in {}", section),
                         fmt::join(NamesIn(section), ", ")));
  }

  std::string Place(const YAML::Mark& mark) const {
    return fmt::format("{}:{}:{}", file_, std::max(mark.line, 0) + 1, std::max(mark.column, 0) + 1);
  }
  // Where the key got its value; a default's place is the name of the file, or "configuration".
  std::string PlaceOf(std::string_view key) const {
    for (const auto& [known, place] : places_) {
      if (known == key) return place;
    }
    return file_.empty() ? "configuration" : file_;
  }
  void AddError(const std::string& place, const std::string& what) { errors_.push_back(place + ": " + what); }

  std::string file_;
  Config config_;
  std::vector<std::string> errors_;
  std::vector<std::pair<std::string_view, std::string>> places_;
};

absl::StatusOr<std::string> ReadWhole(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    std::string reason = std::strerror(errno);
    return errno == ENOENT ? NotFound("{}: {}", path, reason) : InvalidArgument("{}: {}", path, reason);
  }
  std::string text(kMaxFileBytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.bad() || (in.fail() && !in.eof())) return InvalidArgument("{}: cannot be read", path);
  text.resize(static_cast<size_t>(in.gcount()));
  if (text.size() > kMaxFileBytes) {
    return InvalidArgument("{}: too large; allowed: at most {} bytes", path, kMaxFileBytes);
  }
  return text;
}

}  // namespace

absl::StatusOr<Config> LoadText(const std::string& name, const std::string& text,
                                const LoadOptions& options) {
  Loader loader;
  if (!name.empty()) loader.ReadFile(name, text);
  for (const Override& override_value : options.overrides) loader.Apply(override_value);
  if (options.check_files) loader.CheckFiles();
  loader.CheckTogether();
  return loader.Finish();
}

absl::StatusOr<Config> Load(const LoadOptions& options) {
  std::string text;
  if (!options.file.empty()) {
    MNEMO_ASSIGN_OR_RETURN(text, ReadWhole(options.file));
  }
  return LoadText(options.file, text, options);
}

}  // namespace mnemo::config
