// A memory method: what each of the four steps does, as data. The steps consist of the closed set of
// operations of proto/layout. So a memory device needs no knowledge of methods, and no method knows where its
// steps run (server/memory/placement.h).
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
    int entry_tokens = 1;  // tokens that one selected entry stands for
  } apply;
};

struct MethodOptions {
  int entry_tokens = 16;  // tokens of an entry, of methods that select pages: 16 or 64
};

// Bits of a stored key's element.
enum class KeyBits {
  kNone,    // the method stores no keys
  kFixed,   // the method's own
  kChosen,  // 2, 4 or 8: the request's, or attention.key_bits
};

struct Method {
  AttentionSettings::Method id = AttentionSettings::Method::kDense;
  // As configured and reported: "token_topk". The protocol's name is ATTENTION_METHOD_ and this in capitals.
  std::string_view name;

  KeyBits key_bits = KeyBits::kNone;
  bool two_stages = false;     // uses first_stage_tokens
  bool selects_pages = false;  // uses MethodOptions::entry_tokens
  // Weights that the method needs for each layer, as in "a trained gate". Empty: none. No model file has any,
  // so that a method with weights is known and refused; the functions below may be null.
  std::string_view weights;
  // Name of a method that does the same without weights.
  std::string_view without_weights;

  MethodSteps (*steps)(const AttentionSettings& settings, const MethodOptions& options) = nullptr;
  // Fills the method's own fields, key_bits and first_stage_tokens, from what is given and the defaults; the
  // other fields are complete. Null: the method uses neither field.
  void (*fill)(const GivenSettings& given, const SettingsDefaults& defaults,
               AttentionSettings* settings) = nullptr;
  // Checks what CheckSettings leaves to the method. Null: nothing.
  absl::Status (*check)(const AttentionSettings& settings) = nullptr;
};

#define MNEMO_METHOD_CONSTANT(number, name) extern const Method k##name;
MNEMO_MEMORY_METHODS(MNEMO_METHOD_CONSTANT)
#undef MNEMO_METHOD_CONSTANT

// All methods, in the order of the list. Dense attention is none: it has no memory.
std::span<const Method* const> Methods();
// nullptr: dense, or no known method.
const Method* FindMethod(AttentionSettings::Method id);

// Name of a method or of dense: "token_topk". Empty: the number of no method.
std::string_view MethodName(AttentionSettings::Method id);
// "ATTENTION_METHOD_TOKEN_TOPK"; empty as MethodName.
std::string ProtocolName(AttentionSettings::Method id);
std::optional<AttentionSettings::Method> MethodNamed(std::string_view name);

// Names in the order of the protocol's numbers, "dense" first: of all methods, or of those that run.
std::vector<std::string_view> AllNames();
std::vector<std::string_view> RunnableNames();
// Names of the methods with a trait, in the order of the protocol's numbers.
std::vector<std::string_view> NamesWhere(bool (*trait)(const Method& method));
// "a, b or c", with the word before the last name.
std::string Joined(const std::vector<std::string_view>& names, std::string_view word);

// A method that is known beside those of the list for as long as this lives, for tests. `method` outlives it.
// Not while another thread uses the table.
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
