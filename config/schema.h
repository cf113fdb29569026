// The table behind Load and Schema: for each key where its value lives, what it may be and what it means.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "config/config.h"

namespace mnemo::config {

// In [min, max], or `special` when that is not negative (0 often stands for "chosen by the program"). With
// `choices`, one of them.
template <typename T>
struct NumberSpec {
  T& (*field)(Config&);
  int64_t min;
  int64_t max;
  int64_t special = -1;
  std::vector<int64_t> choices = {};
};

struct BoolSpec {
  bool& (*field)(Config&);
};

// Form of a text, beyond UTF-8 without control characters.
enum class TextForm {
  kAny,
  kName,            // what NameProblem allows, or empty
  kIdentifier,      // a lower-case letter, then letters, digits, '_' and '-'; 32 at most
  kChoice,          // one of `choices`
  kListenAddress,   // HOST:PORT, port 0 = any free one, or unix:/PATH in a directory that is there
  kOptionalListen,  // HOST:PORT or empty
  kFileMode,        // octal permissions, 0000 to 0777
  kModelFile,       // a regular file that can be read, or empty
  kProgram,         // a regular file that can be executed, or empty
};

struct TextSpec {
  std::string& (*field)(Config&);
  TextForm form = TextForm::kAny;
  std::vector<std::string_view> choices = {};
};

struct NumberListSpec {
  std::vector<int64_t>& (*field)(Config&);
  int64_t min;
  int64_t max;
  size_t max_count;
};

// Addresses: "unix:/PATH" or, over the network, "HOST:PORT" after `network_prefix`.
struct AddressListSpec {
  std::vector<std::string>& (*field)(Config&);
  size_t max_count;
  std::string_view network_prefix = "";
};

// KEY=VALUE, no KEY twice.
struct PairListSpec {
  std::vector<std::string>& (*field)(Config&);
  size_t max_count;
};

// Texts of a form that `check` knows; an error of it says which text is wrong.
struct FormListSpec {
  std::vector<std::string>& (*field)(Config&);
  size_t max_count;
  std::string_view form;  // "DEVICE=WATTS"
  absl::Status (*check)(const std::vector<std::string>&);
};

struct KeySpec {
  std::string_view key;  // "engine.max_running"
  std::variant<NumberSpec<int>, NumberSpec<int64_t>, BoolSpec, TextSpec, NumberListSpec, AddressListSpec,
               PairListSpec, FormListSpec>
      value;
  std::string_view text;  // one line of documentation
  bool reloadable = false;

  std::string Type() const;     // "integer"
  std::string Allowed() const;  // "[1, 1024]"
  // The value in `config`, as YAML.
  std::string Print(const Config& config) const;
};

// In the order of Config.
std::span<const KeySpec> KeySpecs();
const KeySpec* FindKey(std::string_view key);  // nullptr when unknown
// The present key of a setting that was called `old_key` once; empty when none was.
std::string_view NewName(std::string_view old_key);

// nullptr when `text` has the form, else what is wrong with it. Does not look at files.
const char* CheckText(const TextSpec& spec, const std::string& text);
// The same for a file that must be there, where the form asks for one.
const char* CheckFile(TextForm form, const std::string& path);
bool IsHostPort(std::string_view text, int min_port);

}  // namespace mnemo::config
