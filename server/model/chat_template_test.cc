#include "server/model/chat_template.h"

#include <catch2/catch.hpp>
#include <memory>

#include "tests/support/gguf_writer.h"
#include "tests/support/temp_folder.h"

namespace mnemo::model {
namespace {

using Catch::Matchers::Contains;

struct FileOptions {
  std::string architecture = "llama";
  std::string chat_template;  // empty: none
  std::string tool_use;
  std::string model = "gpt2";
  std::vector<std::string> control = {"<s>", "</s>"};  // begin, end, others
  bool add_bos = false;
  bool add_eos = false;
};

absl::StatusOr<ChatTemplate> Read(const FileOptions& options, std::string_view choice = "") {
  testing::GgufWriter writer;
  writer.AddString("general.architecture", options.architecture);
  if (!options.chat_template.empty()) writer.AddString("tokenizer.chat_template", options.chat_template);
  if (!options.tool_use.empty()) writer.AddString("tokenizer.chat_template.tool_use", options.tool_use);
  writer.AddString("tokenizer.ggml.model", options.model);
  writer.AddString("tokenizer.ggml.pre", "gpt-2");
  std::vector<std::string> tokens = options.control;
  std::vector<int32_t> kinds(tokens.size(), static_cast<int32_t>(TokenKind::kControl));
  for (char c = '!'; c <= '~'; ++c) tokens.emplace_back(1, c);
  kinds.resize(tokens.size(), static_cast<int32_t>(TokenKind::kNormal));
  writer.AddStrings("tokenizer.ggml.tokens", tokens);
  writer.AddInts("tokenizer.ggml.token_type", kinds);
  writer.AddUint32("tokenizer.ggml.bos_token_id", 0);
  writer.AddUint32("tokenizer.ggml.eos_token_id", 1);
  writer.AddBool("tokenizer.ggml.add_bos_token", options.add_bos);
  writer.AddBool("tokenizer.ggml.add_eos_token", options.add_eos);
  const std::vector<std::byte> image = writer.Bytes();
  const absl::StatusOr<std::unique_ptr<GgufFile>> file = GgufFile::Parse(image, "chat.gguf", {});
  REQUIRE(file.ok());
  return ChatTemplate::Read(**file, choice);
}

TEST_CASE("the file's own template is taken, whatever it is, with its tokens") {
  const auto found = Read({.chat_template = "{{ anything }}", .tool_use = "{{ tools }}"});
  REQUIRE(found.ok());
  CHECK(found->text == "{{ anything }}");
  CHECK(found->tool_use_text == "{{ tools }}");
  CHECK_THAT(found->origin, Contains("tokenizer.chat_template") && Contains("chat.gguf"));
  CHECK(found->special_tokens ==
        std::map<std::string, std::string>{{"bos_token", "<s>"}, {"eos_token", "</s>"}});
}

TEST_CASE("a file without a template gets its architecture's family") {
  const auto text = [](const FileOptions& options) {
    const auto found = Read(options);
    REQUIRE(found.ok());
    return found->text;
  };
  CHECK_THAT(text({.control = {"<|im_start|>", "<|im_end|>"}}), Contains("ChatML"));
  CHECK_THAT(text({.control = {"<s>", "</s>", "<|start_header_id|>"}}), Contains("Llama 3"));
  CHECK_THAT(text({.control = {"<s>", "</s>", "[INST]"}}), Contains("byte-level"));
  CHECK_THAT(text({.model = "llama", .control = {"<s>", "</s>", "[INST]"}}), Contains("SentencePiece"));
  CHECK_THAT(text({.model = "llama"}), Contains("Llama 2"));
  CHECK_THAT(text({.architecture = "gemma3"}), Contains("Gemma 3"));
  CHECK_THAT(text({.architecture = "qwen2"}), Contains("Qwen2"));
  CHECK_THAT(text({.architecture = "qwen3"}), Contains("Qwen3"));
  const auto none = Read({});
  CHECK(none.status().code() == absl::StatusCode::kUnimplemented);
  CHECK_THAT(std::string(none.status().message()), Contains("model.chat_template") && Contains("zephyr"));
}

TEST_CASE("model.chat_template is a family or a file") {
  for (const std::string& family : ChatTemplate::Families()) {
    INFO(family);
    const auto found = Read({.chat_template = "{{ own }}"}, family);
    REQUIRE(found.ok());
    CHECK_THAT(found->origin, Contains(family));
    CHECK(found->text != "{{ own }}");
  }
  const testing::TempFolder folder;
  const std::string path = folder.Write("mine.jinja", "{{ mine }}");
  const auto found = Read({.chat_template = "{{ own }}"}, path);
  REQUIRE(found.ok());
  CHECK(found->text == "{{ mine }}");
  CHECK_THAT(found->origin, Contains(path));
  for (const std::string& wrong :
       {std::string("vicuna"), folder.path("absent.jinja"), folder.path().string()}) {
    const auto refused = Read({}, wrong);
    CHECK(refused.status().code() == absl::StatusCode::kInvalidArgument);
    CHECK_THAT(std::string(refused.status().message()),
               Contains("model.chat_template") && Contains("chatml"));
  }
}

TEST_CASE("a begin-of-text that the template writes is left to an encoder that adds one") {
  for (const bool add_bos : {false, true}) {
    for (const bool add_eos : {false, true}) {
      const auto found = Read({.chat_template = "x", .add_bos = add_bos, .add_eos = add_eos});
      REQUIRE(found.ok());
      RenderedChat chat{.text = "<s>ab<s>", .literal = {{4, 5}}, .add_special = false};
      LeaveBosToEncoder(*found, &chat);
      const bool left = add_bos && !add_eos;
      CHECK(chat.add_special == left);
      CHECK(chat.text == (left ? "ab<s>" : "<s>ab<s>"));
      CHECK(chat.literal[0].begin == (left ? 1 : 4));
      CHECK(chat.literal[0].end == (left ? 2 : 5));
      RenderedChat message{.text = "<s>ab", .literal = {{0, 5}}, .add_special = false};
      LeaveBosToEncoder(*found, &message);
      CHECK(message.text == "<s>ab");
      CHECK_FALSE(message.add_special);
    }
  }
}

}  // namespace
}  // namespace mnemo::model
