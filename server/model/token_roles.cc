#include "server/model/token_roles.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <map>

#include "server/model/text_stream.h"

namespace mnemo::model {
namespace {

constexpr size_t kMaxMarkerBytes = 128;
constexpr size_t kMaxNotedTokens = 16;
// Maximum bytes of a template between a message's content and the marker after it: quotes, filters, blanks.
constexpr size_t kMaxGap = 80;
constexpr size_t kMaxTemplateBytes = 1 << 20;

// Turn and text markers of the model families, as their published tokenizers name them.
struct FamilyToken {
  std::string_view text;
  // Ends an answer.
  bool ends = false;
  // Other vocabularies have it as a piece of text, such as an HTML tag.
  bool is_common = false;
};
constexpr std::array kFamilyTokens = {
    // ChatML: Qwen, SmolLM2
    FamilyToken{"<|im_start|>"},
    FamilyToken{"<|im_end|>", true},
    FamilyToken{"<|im_sep|>"},
    // GPT-2, Qwen, SmolLM2, Phi
    FamilyToken{"<|endoftext|>", true},
    // Llama 3 and 4
    FamilyToken{"<|begin_of_text|>"},
    FamilyToken{"<|end_of_text|>", true},
    FamilyToken{"<|start_header_id|>"},
    FamilyToken{"<|end_header_id|>"},
    FamilyToken{"<|eot_id|>", true},
    FamilyToken{"<|eom_id|>", true},
    FamilyToken{"<|python_tag|>"},
    FamilyToken{"<|header_start|>"},
    FamilyToken{"<|header_end|>"},
    FamilyToken{"<|eot|>", true},
    FamilyToken{"<|eom|>", true},
    // Gemma
    FamilyToken{"<bos>"},
    FamilyToken{"<eos>", true},
    FamilyToken{"<start_of_turn>"},
    FamilyToken{"<end_of_turn>", true},
    FamilyToken{"<|turn>"},
    FamilyToken{"<turn|>", true},
    // Phi-3, Zephyr
    FamilyToken{"<|system|>"},
    FamilyToken{"<|user|>"},
    FamilyToken{"<|assistant|>"},
    FamilyToken{"<|end|>", true},
    // Llama 2, Mistral. Gemma has the first two as HTML tags.
    FamilyToken{"<s>", false, true},
    FamilyToken{"</s>", true, true},
    FamilyToken{"[INST]"},
    FamilyToken{"[/INST]"},
    FamilyToken{"[SYSTEM_PROMPT]"},
    FamilyToken{"[/SYSTEM_PROMPT]"},
    FamilyToken{"[AVAILABLE_TOOLS]"},
    FamilyToken{"[/AVAILABLE_TOOLS]"},
    FamilyToken{"[TOOL_RESULTS]"},
    FamilyToken{"[/TOOL_RESULTS]"},
    FamilyToken{"[TOOL_CALLS]"},
    // DeepSeek
    FamilyToken{"<\uFF5Cbegin\u2581of\u2581sentence\uFF5C>"},
    FamilyToken{"<\uFF5Cend\u2581of\u2581sentence\uFF5C>", true},
    FamilyToken{"<\uFF5CUser\uFF5C>"},
    FamilyToken{"<\uFF5CAssistant\uFF5C>"},
};

enum class Shape {
  kNone,
  // <|x|>, <|x>, <x|>, [|x|], and with U+FF5C as the bar: never occurs in text by chance.
  kPiped,
  // [X], [/X] with capital letters.
  kBracket,
  // <x>, </x>.
  kAngle,
};

bool IsLetterOrDigit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}
bool IsWordChar(char c) { return IsLetterOrDigit(c) || c == '_'; }

Shape ShapeOf(std::string_view text) {
  constexpr std::string_view kWideBar = "\uFF5C";
  if (text.size() < 3 || text.size() > kMaxMarkerBytes) return Shape::kNone;
  const bool is_angle = text.front() == '<' && text.back() == '>';
  const bool is_bracket = text.front() == '[' && text.back() == ']';
  if (!is_angle && !is_bracket) return Shape::kNone;
  std::string_view inside = text.substr(1, text.size() - 2);
  for (const char c : inside) {
    const bool is_delimiter = is_angle ? c == '<' || c == '>' : c == '[' || c == ']';
    if (static_cast<uint8_t>(c) <= 0x20 || c == 0x7F || is_delimiter) return Shape::kNone;
  }
  if (!IsValidUtf8(text)) return Shape::kNone;
  const bool begins = inside.starts_with('|') || inside.starts_with(kWideBar);
  const bool ends = inside.ends_with('|') || inside.ends_with(kWideBar);
  const bool has_name = std::any_of(inside.begin(), inside.end(), IsLetterOrDigit);
  if (has_name && (is_angle ? begins || ends : begins && ends)) return Shape::kPiped;
  if (inside.starts_with('/')) inside.remove_prefix(1);
  if (is_bracket) {
    const bool is_capital = inside.size() >= 2 && std::all_of(inside.begin(), inside.end(), [](char c) {
                              return (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
                            });
    return is_capital && inside[0] >= 'A' ? Shape::kBracket : Shape::kNone;
  }
  const bool is_word = !inside.empty() && std::all_of(inside.begin(), inside.end(), [](char c) {
    return IsWordChar(c) || c == ':' || c == '-';
  });
  return is_word ? Shape::kAngle : Shape::kNone;
}

bool ContainsIgnoringCase(std::string_view text, std::string_view lower) {
  const auto same = [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a + ('a' - 'A') : a) == b; };
  return std::search(text.begin(), text.end(), lower.begin(), lower.end(), same) != text.end();
}

bool StartsIgnoringCase(std::string_view text, std::string_view lower) {
  return ContainsIgnoringCase(text.substr(0, lower.size()), lower);
}

// Matches <user>, </assistant>.
bool IsRoleTag(std::string_view text) {
  const std::string_view name = text.substr(1, text.size() - 2);
  return name == "system" || name == "user" || name == "assistant" || name == "/system" || name == "/user" ||
         name == "/assistant";
}

// Thinking and tool markers are parts of an answer that clients read, not turns. Published tokenizers have
// them as tokens that are not special (Qwen3, DeepSeek, Phi-4-mini).
bool IsAnswerPart(std::string_view text, Shape shape) {
  return (shape == Shape::kPiped || shape == Shape::kAngle) &&
         (ContainsIgnoringCase(text, "think") || ContainsIgnoringCase(text, "tool"));
}

// Returns whether a marker that a template puts after content may, by its form, be the end of the turn.
bool MayEnd(std::string_view text, Shape shape) {
  if (shape == Shape::kBracket) return false;
  if (shape == Shape::kAngle) return ContainsIgnoringCase(text, "end") || text == "</assistant>";
  return !ContainsIgnoringCase(text, "start") && !ContainsIgnoringCase(text, "begin");
}

// Positions of a marker in the templates.
struct Places {
  // Before a role.
  bool opens_role = false;
  // Before a role or content.
  bool opens = false;
  // After content, with no other branch or marker in between.
  bool closes = false;
};

std::string_view SkipGlue(std::string_view text) {
  // Skips ends and begins of strings and expressions, operators, and blanks, also written as \n.
  while (!text.empty()) {
    if (text.starts_with("\\n")) {
      text.remove_prefix(2);
    } else if (std::string_view("'\"+~{}-( \t\r\n").find(text[0]) != std::string_view::npos) {
      text.remove_prefix(1);
    } else {
      break;
    }
  }
  return text;
}

bool StartsWithRole(std::string_view text) {
  for (const std::string_view role : {"system", "user", "assistant", "developer", "model", "role"}) {
    if (StartsIgnoringCase(text, role)) return true;
  }
  return false;
}

void NoteOpening(std::string_view behind, Places* places) {
  const std::string_view rest = SkipGlue(behind);
  // Matches message['role'], message.content, messages[0]["content"].
  const std::string_view expression =
      rest.starts_with("m") ? rest.substr(0, std::min(rest.find_first_of("+~|}%"), kMaxGap)) : "";
  const bool is_role = StartsWithRole(rest) || expression.find("role") != std::string_view::npos;
  places->opens_role = places->opens_role || is_role;
  places->opens = places->opens || is_role || rest.starts_with("content") ||
                  expression.find("content") != std::string_view::npos;
}

bool ClosesTurn(std::string_view before) {
  const size_t content = before.rfind("content");
  if (content == std::string_view::npos || before.size() - content > kMaxGap) return false;
  const std::string_view gap = before.substr(content);
  for (const std::string_view other :
       {"role", "<|", "|>", "><", " if ", " elif ", " else", " for ", " set "}) {
    if (gap.find(other) != std::string_view::npos) return false;
  }
  return true;
}

using PlacesOfMarkers = std::map<std::string_view, Places>;

// Finds all texts of a template that look like a marker, in one pass: no marker contains its own delimiter.
PlacesOfMarkers FindPlaces(std::string_view templates) {
  PlacesOfMarkers found;
  templates = templates.substr(0, kMaxTemplateBytes);
  for (size_t at = templates.find_first_of("<["); at != std::string_view::npos;
       at = templates.find_first_of("<[", at + 1)) {
    const std::string_view window = templates.substr(at, kMaxMarkerBytes);
    const size_t end = window.find(window[0] == '<' ? '>' : ']');
    if (end == std::string_view::npos) continue;
    const std::string_view marker = window.substr(0, end + 1);
    const Shape shape = ShapeOf(marker);
    if (shape == Shape::kNone) continue;
    // An index such as list[I] is no marker.
    if (shape == Shape::kBracket && at > 0 && IsWordChar(templates[at - 1])) continue;
    Places& places = found[marker];
    NoteOpening(templates.substr(at + marker.size(), 2 * kMaxGap), &places);
    places.closes = places.closes ||
                    ClosesTurn(templates.substr(at - std::min(at, 2 * kMaxGap), std::min(at, 2 * kMaxGap)));
  }
  return found;
}

class Decision {
 public:
  explicit Decision(const TokenEvidence& evidence)
      : evidence_(evidence), places_(FindPlaces(evidence.templates)) {
    const auto is_marked = [](TokenKind kind) {
      return kind == TokenKind::kControl || kind == TokenKind::kUserDefined;
    };
    is_typed_ = std::any_of(evidence.kinds.begin(), evidence.kinds.end(), is_marked);
    if (evidence.kinds.empty()) {
      roles_.kinds.assign(evidence.texts.size(), TokenKind::kNormal);
    } else {
      roles_.kinds.assign(evidence.kinds.begin(), evidence.kinds.end());
    }
    for (size_t i = 0; i < evidence.texts.size(); ++i) {
      has_eos_token_ = has_eos_token_ || evidence.texts[i] == "<eos>";
    }
  }

  TokenRoles Run() {
    FindBytes();
    for (size_t i = 0; i < evidence_.texts.size(); ++i) Decide(i);
    AddNamedEnds();
    std::vector<int32_t>& ends = roles_.end_ids;
    std::sort(ends.begin(), ends.end());
    ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
    Note(control_, "control tokens");
    Note(parts_, "user-defined tokens");
    return std::move(roles_);
  }

 private:
  static bool Has(std::span<const int32_t> ids, int32_t id) {
    return std::find(ids.begin(), ids.end(), id) != ids.end();
  }

  // SentencePiece writes its byte tokens as <0x00> to <0xFF>: a file has all of them or none.
  void FindBytes() {
    if (!evidence_.is_sentencepiece) return;
    std::array<int32_t, 256> ids;
    ids.fill(-1);
    for (size_t i = 0; i < evidence_.texts.size(); ++i) {
      if (const int byte = ParseByteToken(evidence_.texts[i]); byte >= 0) {
        ids[static_cast<size_t>(byte)] = static_cast<int32_t>(i);
      }
    }
    if (std::count(ids.begin(), ids.end(), -1) != 0) return;
    int changed = 0;
    for (const int32_t id : ids) {
      TokenKind& kind = roles_.kinds[static_cast<size_t>(id)];
      changed += kind != TokenKind::kByte ? 1 : 0;
      kind = TokenKind::kByte;
    }
    if (changed > 0) {
      roles_.notes.push_back(fmt::format(
          "{} of the 256 byte tokens, <0x00> to <0xFF>, are not typed as such; taken for them", changed));
    }
  }

  // Returns whether merges form the piece, which makes it common text, whatever its form.
  bool IsMerged(std::string_view text) const {
    for (const std::string_view merge : evidence_.merges) {
      if (merge.size() != text.size() + 1) continue;
      const size_t blank = merge.find(' ', 1);
      if (blank != std::string_view::npos && text.starts_with(merge.substr(0, blank)) &&
          text.ends_with(merge.substr(blank + 1))) {
        return true;
      }
    }
    return false;
  }

  void Decide(size_t i) {
    const std::string_view text = evidence_.texts[i];
    const Shape shape = ShapeOf(text);
    if (shape == Shape::kNone) return;
    const auto id = static_cast<int32_t>(i);
    TokenKind& kind = roles_.kinds[i];
    const auto family = std::find_if(kFamilyTokens.begin(), kFamilyTokens.end(),
                                     [&](const FamilyToken& token) { return token.text == text; });
    const bool is_family = family != kFamilyTokens.end() && !(family->is_common && has_eos_token_);
    const bool is_named = Has(evidence_.named_ids, id) || Has(evidence_.end_ids, id);
    const auto found = places_.find(text);
    const bool is_in_template = found != places_.end();
    const Places places = is_in_template ? found->second : Places();
    const bool is_plain =
        kind == TokenKind::kNormal || kind == TokenKind::kUnused || kind == TokenKind::kByte;
    if (!is_family && !is_named && IsAnswerPart(text, shape)) {
      if (is_plain && (is_in_template || !is_typed_) && !IsMerged(text)) {
        kind = TokenKind::kUserDefined;
        parts_.push_back(text);
      }
      return;
    }
    const bool ends_by_template = places.closes && !places.opens && MayEnd(text, shape);
    if (kind != TokenKind::kControl && kind != TokenKind::kUnknown) {
      // Tags in angle brackets are common in code: only a template's use as turn markers makes them control
      // tokens.
      const bool is_template_marker = shape == Shape::kAngle ? places.opens_role || ends_by_template ||
                                                                   (is_in_template && IsRoleTag(text))
                                                             : is_in_template;
      const bool is_unreachable = shape == Shape::kPiped && !is_typed_;
      if (!is_family && !is_named && !is_template_marker && !is_unreachable) return;
      if (is_plain && shape != Shape::kPiped && !is_named && IsMerged(text)) return;
      kind = TokenKind::kControl;
      control_.push_back(text);
    }
    if ((is_family && family->ends) || ends_by_template) roles_.end_ids.push_back(id);
  }

  // An end token that is common text would cut answers in the middle. It is an error of the file, unless it
  // is the only end token.
  void AddNamedEnds() {
    const bool has_others = !roles_.end_ids.empty();
    for (const int32_t id : evidence_.end_ids) {
      if (id < 0) continue;
      const std::string_view text = evidence_.texts[static_cast<size_t>(id)];
      const TokenKind kind = roles_.kinds[static_cast<size_t>(id)];
      const bool is_text = kind == TokenKind::kNormal || kind == TokenKind::kByte;
      if (is_text && has_others && !Has(roles_.end_ids, id)) {
        roles_.notes.push_back(fmt::format(
            "its end token {} is the piece of text '{}'; not taken for an end, as the vocabulary has {}", id,
            Printable(text), fmt::join(EndTexts(), ", ")));
        continue;
      }
      roles_.end_ids.push_back(id);
    }
  }

  std::vector<std::string_view> EndTexts() const {
    std::vector<std::string_view> texts;
    for (const int32_t id : roles_.end_ids) texts.push_back(evidence_.texts[static_cast<size_t>(id)]);
    return texts;
  }

  static std::string Printable(std::string_view text) {
    std::string valid;
    AppendValidUtf8(text.substr(0, kMaxMarkerBytes), true, &valid);
    for (char& c : valid) c = static_cast<uint8_t>(c) < 0x20 || c == 0x7F ? '_' : c;
    return valid;
  }

  void Note(const std::vector<std::string_view>& texts, std::string_view kind) {
    if (texts.empty()) return;
    const auto shown_end = texts.begin() + static_cast<ptrdiff_t>(std::min(texts.size(), kMaxNotedTokens));
    roles_.notes.push_back(fmt::format("{} tokens are not typed as {} and are taken for such: {}{}",
                                       texts.size(), kind, fmt::join(texts.begin(), shown_end, ", "),
                                       shown_end != texts.end() ? ", ..." : ""));
  }

  const TokenEvidence& evidence_;
  const PlacesOfMarkers places_;
  TokenRoles roles_;
  // The file distinguishes at least some tokens from text.
  bool is_typed_ = false;
  bool has_eos_token_ = false;
  // Control tokens that the file does not type as such.
  std::vector<std::string_view> control_;
  std::vector<std::string_view> parts_;
};

}  // namespace

int ParseByteToken(std::string_view text) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  if (text.size() != 6 || !text.starts_with("<0x") || text.back() != '>') return -1;
  const int high = digit(text[3]);
  const int low = digit(text[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

TokenRoles DecideTokenRoles(const TokenEvidence& evidence) { return Decision(evidence).Run(); }

}  // namespace mnemo::model
