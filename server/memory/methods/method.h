// A memory method: its four steps, as data. The steps consist of the closed set of operations of
// proto/layout. Therefore a memory device is independent of methods, and a method is independent of the
// placement of its steps (server/memory/placement.h).
//
// A new method is a folder here with one source, its value in mnemo.v1.AttentionMethod, and one line in
// list.h. Configuration, command line, front end, worker and documents take it from the table.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "devices/base/status.h"
#include "proto/layout/descriptor.h"
#include "server/memory/methods/settings.h"

namespace mnemo::memory::methods {

struct MethodSteps {
  struct Prepare {
    layout::Format record_format = layout::kFormatCodes2;
  } prepare;
  struct Relevancy {
    layout::ScoreOp score_op = layout::kScoreDot;
    layout::GroupOp group_op = layout::kGroupMax;
    bool pages_of_64 = false;  // entries are pages of 64 tokens, not of 16
  } relevancy;
  struct Retrieval {
    int first_stage_tokens = 0;  // 0: one stage
  } retrieval;
  struct Apply {
    int entry_tokens = 1;  // tokens of one selected entry
  } apply;
};

struct MethodOptions {
  int entry_tokens = 16;  // tokens of an entry in methods that select pages: 16 or 64
};

// Bits of a stored key's element.
enum class KeyBits {
  kNone,    // the method stores no keys
  kFixed,   // fixed by the method
  kChosen,  // 2, 4 or 8: chosen by the request, else attention.key_bits
};

struct Method {
  AttentionSettings::Method id = AttentionSettings::Method::kDense;
  // Name in configuration and reports: "token_topk". The protocol's name is ATTENTION_METHOD_ followed by
  // this name in capitals.
  std::string_view name;

  KeyBits key_bits = KeyBits::kNone;
  bool two_stages = false;     // uses first_stage_tokens
  bool selects_pages = false;  // uses MethodOptions::entry_tokens
  // Weights that the method needs for each layer, such as "a trained gate". Empty: none. No model file has
  // them, so a method with weights is known but refused, and its functions below may be null.
  std::string_view weights;
  // Name of a method that serves the same purpose without weights.
  std::string_view without_weights;

  MethodSteps (*steps)(const AttentionSettings& settings, const MethodOptions& options) = nullptr;
  // Sets key_bits and first_stage_tokens, as far as the method uses them, from `given` and `defaults`. The
  // other fields are already set. Null: the method uses neither field.
  void (*fill)(const GivenSettings& given, const SettingsDefaults& defaults,
               AttentionSettings* settings) = nullptr;
  // Checks that are specific to the method, after those of CheckSettings. Null: there are none.
  absl::Status (*check)(const AttentionSettings& settings) = nullptr;
};

#define MNEMO_METHOD_CONSTANT(number, name) extern const Method k##name;
MNEMO_MEMORY_METHODS(MNEMO_METHOD_CONSTANT)
#undef MNEMO_METHOD_CONSTANT

// All methods, in the order of the list. Dense attention is not among them: it has no memory.
std::span<const Method* const> Methods();
// Returns nullptr for dense attention and for numbers of no known method.
const Method* FindMethod(AttentionSettings::Method id);

// Name of a method or of dense attention: "token_topk". Empty for the number of no method.
std::string_view MethodName(AttentionSettings::Method id);
// Name in the protocol: "ATTENTION_METHOD_TOKEN_TOPK". Empty for the number of no method.
std::string ProtocolName(AttentionSettings::Method id);
// nullopt when no method has the name.
std::optional<AttentionSettings::Method> MethodNamed(std::string_view name);

// Names in the order of the protocol's numbers, "dense" first: of all methods, or of those that run.
std::vector<std::string_view> AllNames();
std::vector<std::string_view> RunnableNames();
// Names of the methods for which `trait` is true, in the order of the protocol's numbers.
std::vector<std::string_view> NamesWhere(bool (*trait)(const Method& method));
// Joins names as in "a, b or c", where `word` is "or".
std::string Joined(const std::vector<std::string_view>& names, std::string_view word);

// Adds a method to those of the list for the lifetime of this object, for tests. `method` outlives it. No
// other thread may use the table during construction and destruction.
class AddedMethod {
 public:
  explicit AddedMethod(const Method* method);
  ~AddedMethod();
  AddedMethod(const AddedMethod&) = delete;
  AddedMethod& operator=(const AddedMethod&) = delete;

 private:
  const Method* const method_;
};

}  // namespace mnemo::memory::methods
