#include "server/model/model_config.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "server/model/metadata_keys.h"
#include "server/model/rotary_table.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/tiny_model.h"

namespace mnemo::model {
namespace {

using Catch::Matchers::Contains;
using testing::GgufWriter;
using testing::TinyModelOptions;

using Bytes = std::vector<std::byte>;
using Edit = std::function<void(GgufWriter&)>;

struct Changes {
  std::set<std::string> without;  // keys and tensors to leave out
  Edit add = [](GgufWriter&) {};  // adds keys and tensors in their place
};

// Returns a tiny model with some keys or tensors removed and others added.
Bytes Changed(const TinyModelOptions& options, const Changes& changes) {
  const Bytes bytes = testing::TinyModel(options);
  const auto file = GgufFile::Parse(bytes, "tiny.gguf", {});
  REQUIRE(file.ok());
  GgufWriter writer;
  const std::string& arch = options.architecture;
  std::vector<std::string> keys = {"general.name"};
  for (const char* key : {"block_count", "context_length", "embedding_length", "feed_forward_length",
                          "attention.head_count", "attention.head_count_kv", "attention.key_length",
                          "attention.value_length", "attention.layer_norm_rms_epsilon",
                          "rope.dimension_count", "rope.freq_base", "attention.sliding_window"}) {
    keys.push_back(arch + "." + key);
  }
  if (!changes.without.contains("general.architecture")) writer.AddString("general.architecture", arch);
  for (const std::string& key : keys) {
    const GgufValue* value = (*file)->Find(key);
    if (value == nullptr || changes.without.contains(key)) continue;
    if (const auto* number = std::get_if<uint64_t>(value)) {
      writer.AddUint32(key, static_cast<uint32_t>(*number));
    } else if (const auto* real = std::get_if<double>(value)) {
      writer.AddFloat32(key, static_cast<float>(*real));
    } else {
      writer.AddString(key, std::get<std::string_view>(*value));
    }
  }
  for (const GgufTensor& tensor : (*file)->tensors()) {
    if (changes.without.contains(tensor.name)) continue;
    writer.AddTensor(tensor.name, tensor.type, tensor.dims, *tensor.data.ReadAll());
  }
  changes.add(writer);
  return writer.Bytes();
}

absl::StatusOr<ModelConfig> Read(const Bytes& bytes) {
  const auto file = GgufFile::Parse(bytes, "tiny.gguf", {});
  REQUIRE(file.status() == absl::OkStatus());
  return ReadModelConfig(**file);
}

void CheckRefused(const Bytes& bytes, absl::StatusCode code, const std::string& message) {
  const auto config = Read(bytes);
  INFO(message);
  REQUIRE_FALSE(config.ok());
  CHECK(config.status().code() == code);
  CHECK_THAT(std::string(config.status().message()), Contains("tiny.gguf: ") && Contains(message));
}

void CheckKey(const TinyModelOptions& options, const std::string& key, uint32_t value) {
  const Changes changes{{key}, [&](GgufWriter& writer) { writer.AddUint32(key, value); }};
  CheckRefused(Changed(options, changes), absl::StatusCode::kInvalidArgument, key);
}

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

}  // namespace

TEST_CASE("llama: the configuration and its tensors") {
  TinyModelOptions options;
  options.rope_factors = true;
  options.tied_output = false;
  options.matrix_type = devices::TensorType::kQ8_0;
  const Bytes bytes = testing::TinyModel(options);
  const auto file = GgufFile::Parse(bytes, "tiny.gguf", {});
  const auto config = ReadModelConfig(**file);
  REQUIRE(config.status() == absl::OkStatus());
  CHECK(config->architecture == "llama");
  CHECK(config->name == "tiny-llama");
  CHECK(config->quantization == "Q8_0");
  CHECK(config->vocabulary == testing::kTinyVocabulary);
  CHECK(config->context_tokens == 1024);
  CHECK(config->layers == 2);
  CHECK(config->head_dim == 16);
  CHECK(config->attention_scale == 0.25f);
  CHECK(config->rotary_style == devices::RotaryStyle::kInterleaved);
  CHECK(config->rotary_dims == 16);
  CHECK(config->rope_theta == 10000.0);
  CHECK(config->rope_factors == std::vector<float>{1.0f, 1.75f, 2.5f, 3.25f, 4.0f, 4.75f, 5.5f, 6.25f});
  CHECK(config->sliding_window == 0);
  CHECK(config->layer_is_windowed == std::vector<bool>{false, false});
  CHECK_FALSE(config->tied_output);
  CHECK(config->embedding_scale == 1.0f);
  const int64_t layer = 64 + 64 * 64 * 2 + 64 * 32 * 2 + 64 + 64 * 128 * 3;
  CHECK(config->parameters == 2 * 259 * 64 + 64 + 8 + 2 * layer);

  const auto sources = WeightSources(**file, *config);
  REQUIRE(sources.ok());
  // The rotary factors are part of the configuration.
  CHECK(sources->size() == (*file)->tensors().size() - 1);
  CHECK(sources->front().name == "token_embd.weight");
  for (const devices::TensorSource& source : *sources) {
    const GgufTensor* tensor = (*file)->FindTensor(source.name);
    CHECK(source.cols == tensor->dims[0]);
    CHECK((source.role == devices::TensorRole::kVector) == (tensor->dims.size() == 1));
    CHECK(source.data.memory().data() == tensor->data.memory().data());
  }
}

TEST_CASE("The KV cache has 8 bits by default where its error is below that of the weights") {
  ModelConfig config;
  config.coarse_share = 1;
  config.head_dim = 128;
  CHECK(DefaultKvType(config) == devices::KvType::kQ8);
  config.head_dim = 256;
  CHECK(DefaultKvType(config) == devices::KvType::kF16);
  config.head_dim = 64;
  config.qkv_bias = true;
  CHECK(DefaultKvType(config) == devices::KvType::kF16);
}

TEST_CASE("The KV cache has 16 bits where the layers' weights have 16") {
  using devices::KvType;
  using devices::TensorType;
  const std::map<TensorType, KvType> expected = {
      {TensorType::kF32, KvType::kF16}, {TensorType::kF16, KvType::kF16}, {TensorType::kBF16, KvType::kF16},
      {TensorType::kQ8_0, KvType::kQ8}, {TensorType::kQ6_K, KvType::kQ8}, {TensorType::kQ5_0, KvType::kQ8},
      {TensorType::kQ5_1, KvType::kQ8}, {TensorType::kQ5_K, KvType::kQ8}, {TensorType::kQ4_0, KvType::kQ8},
      {TensorType::kQ4_1, KvType::kQ8}, {TensorType::kQ4_K, KvType::kQ8}};
  for (uint32_t number = 0; number < 64; ++number) {
    const devices::TensorTypeTraits* traits = devices::FindTensorType(number);
    if (traits == nullptr) continue;
    INFO(traits->name);
    TinyModelOptions options;  // rows of whole blocks in every format
    options.dim = options.ffn_dim = 256;
    options.head_dim = 64;
    options.matrix_type = traits->type;
    const Bytes bytes = testing::TinyModel(options);
    const auto file = GgufFile::Parse(bytes, "tiny.gguf", {});
    REQUIRE(file.status() == absl::OkStatus());
    const auto config = ReadModelConfig(**file);
    REQUIRE(config.status() == absl::OkStatus());
    CHECK(config->coarse_share == (expected.at(traits->type) == KvType::kQ8 ? 1.0 : 0.0));
    CHECK(DefaultKvType(*config) == expected.at(traits->type));
  }
}

TEST_CASE("The format of most layer elements decides the KV cache, not that of the tables") {
  // Rows of 64: block formats of 256 fall back to F32, except for ffn_down, whose rows have 256.
  TinyModelOptions options;
  options.ffn_dim = 256;
  options.matrix_type = devices::TensorType::kQ4_K;
  const Bytes bytes = testing::TinyModel(options);
  const auto file = GgufFile::Parse(bytes, "tiny.gguf", {});
  REQUIRE(file.status() == absl::OkStatus());
  const auto config = ReadModelConfig(**file);
  REQUIRE(config.status() == absl::OkStatus());
  // Elements of a layer: q and output 64 x 64, k and v 32 x 64, three matrices of the feed-forward network
  // 256 x 64.
  CHECK(config->coarse_share == Approx(256.0 * 64 / (2 * 64 * 64 + 2 * 32 * 64 + 3 * 256 * 64)));
  CHECK(DefaultKvType(*config) == devices::KvType::kF16);
}

TEST_CASE("Differences between the architectures") {
  TinyModelOptions options;
  options.layers = 7;
  options.architecture = "qwen2";
  auto config = Read(testing::TinyModel(options));
  REQUIRE(config.ok());
  CHECK(config->qkv_bias);
  CHECK_FALSE(config->qk_norm);
  CHECK(config->rotary_style == devices::RotaryStyle::kHalves);

  options.architecture = "qwen3";
  options.head_dim = 32;
  config = Read(testing::TinyModel(options));
  REQUIRE(config.ok());
  CHECK_FALSE(config->qkv_bias);
  CHECK(config->qk_norm);
  CHECK(config->head_dim == 32);
  CHECK(config->rope_theta_local == 0);

  options.architecture = "gemma3";
  config = Read(testing::TinyModel(options));
  REQUIRE(config.ok());
  CHECK(config->qk_norm);
  CHECK(config->post_norms);
  CHECK(config->gelu);
  CHECK(config->embedding_scale == 8.0f);
  CHECK(config->sliding_window == 64);
  CHECK(config->layer_is_windowed == std::vector<bool>{true, true, true, true, true, false, true});
  CHECK(config->rope_theta == 1e6);
  CHECK(config->rope_theta_local == 1e4);
  CHECK(config->attention_scale == static_cast<float>(1 / std::sqrt(32.0)));
  CHECK(config->tied_output);

  // 27B: uses the width of the model's heads, not of the attention's.
  options.layers = 62;
  options.dim = 68;
  config = Read(testing::TinyModel(options));
  REQUIRE(config.ok());
  CHECK(config->attention_scale == static_cast<float>(1 / std::sqrt(17.0)));
}

TEST_CASE("gemma3: keys that repeat properties of the architecture") {
  TinyModelOptions options;
  options.architecture = "gemma3";
  options.layers = 3;
  const auto config = Read(Changed(options, {{}, [](GgufWriter& writer) {
                                               writer.AddUint32("gemma3.attention.sliding_window_pattern", 2);
                                               writer.AddFloat32("gemma3.rope.freq_base_swa", 500.0f);
                                               writer.AddString("gemma3.rope.scaling.type", "linear");
                                               writer.AddFloat32("gemma3.rope.scaling.factor", 8.0f);
                                               writer.AddFloat32("gemma3.attention.scale", 0.5f);
                                             }}));
  REQUIRE(config.status() == absl::OkStatus());
  CHECK(config->layer_is_windowed == std::vector<bool>{true, false, true});
  CHECK(config->rope_theta_local == 500.0);
  CHECK(config->rope_linear_scale == 8.0);
  CHECK(config->attention_scale == 0.5f);
}

TEST_CASE("A factor of rotary scaling counts without a type, and unused keys give warnings") {
  const auto read = [](const Edit& add) {
    const auto config = Read(Changed({}, {{}, add}));
    REQUIRE(config.status() == absl::OkStatus());
    return *config;
  };
  ModelConfig config = read([](GgufWriter& writer) { writer.AddFloat32("llama.rope.scaling.factor", 4.0f); });
  CHECK(config.rope_linear_scale == 4.0);
  CHECK(config.warnings.empty());
  config = read([](GgufWriter& writer) { writer.AddFloat32("llama.rope.scaling.factor", 0.0f); });
  CHECK(config.rope_linear_scale == 1.0);
  config = read([](GgufWriter& writer) {
    writer.AddString("llama.rope.scaling.type", "none");
    writer.AddFloat32("llama.rope.scaling.factor", 4.0f);
  });
  CHECK(config.rope_linear_scale == 1.0);
  REQUIRE(config.warnings.size() == 1);
  CHECK_THAT(config.warnings[0], Contains("'llama.rope.scaling.factor' is 4 and not used"));
  config = read([](GgufWriter& writer) {
    writer.AddFloat32("llama.rope.scaling.factor", 2.0f);
    writer.AddFloat32("llama.rope.scale_linear", 4.0f);
  });
  CHECK(config.rope_linear_scale == 2.0);
  REQUIRE(config.warnings.size() == 1);
  CHECK_THAT(config.warnings[0], Contains("'llama.rope.scale_linear' is not used"));
}

TEST_CASE("Keys that change no number are warned of by name, and well-known ones are not") {
  const auto config = Read(Changed({}, {{}, [](GgufWriter& writer) {
                                          writer.AddUint32("general.file_type", 3);
                                          writer.AddUint32("general.quantization_version", 2);
                                          writer.AddUint32("llama.vocab_size", testing::kTinyVocabulary);
                                          writer.AddUint32("llama.expert_count", 0);
                                        }}));
  REQUIRE(config.status() == absl::OkStatus());
  CHECK(config->warnings.empty());
  const auto warned = Read(Changed({}, {{}, [](GgufWriter& writer) {
                                          writer.AddUint32("llama.vocab_size", 32000);
                                          writer.AddUint32("llama.pooling_type", 3);
                                          writer.AddFloat32("llama.attention.layer_norm_epsilon", 1e-5f);
                                          writer.AddString("tokenizer.ggml.model", "gpt2");
                                          writer.AddUint32("tokenizer.ggml.news", 1);
                                        }}));
  REQUIRE(warned.status() == absl::OkStatus());
  std::string all;
  for (const std::string& warning : warned->warnings) all += warning + "\n";
  for (const char* key :
       {"'llama.vocab_size' is 32000 and not used: the embedding table has 259 rows",
        "'llama.pooling_type' is 3", "'llama.attention.layer_norm_epsilon'", "'tokenizer.ggml.news' is 1",
        "'tokenizer.ggml.pre' is absent", "'tokenizer.ggml.eos_token_id' is absent"}) {
    CHECK_THAT(all, Contains(key));
  }
  CHECK(warned->warnings.size() == 6);
  const auto vague = Read(Changed({}, {{}, [](GgufWriter& writer) {
                                         writer.AddString("tokenizer.ggml.model", "gpt2");
                                         writer.AddString("tokenizer.ggml.pre", "default");
                                         writer.AddUint32("tokenizer.ggml.eos_token_id", 1);
                                       }}));
  REQUIRE(vague.status() == absl::OkStatus());
  REQUIRE(vague->warnings.size() == 1);
  CHECK_THAT(vague->warnings[0], Contains("'tokenizer.ggml.pre' is 'default'"));
}

TEST_CASE("The table of metadata keys finds the first entry that fits") {
  CHECK(FindMetadataKey("qwen2.rope.freq_base", "qwen2")->absent == "10000");
  CHECK(FindMetadataKey("gemma3.rope.freq_base", "gemma3")->absent == "required");
  CHECK(FindMetadataKey("qwen2.rope.freq_base_swa", "qwen2")->use == KeyUse::kNeutral);
  CHECK(FindMetadataKey("llama.block_count", "qwen2") == nullptr);  // key of another architecture
  CHECK(FindMetadataKey("rope.freq_base", "llama")->use == KeyUse::kNeutral);
  CHECK(FindMetadataKey("general.tags", "llama")->use == KeyUse::kIgnored);
  CHECK(FindMetadataKey("tokenizer.ggml.fim_pre_token_id", "llama")->use == KeyUse::kIgnored);
}

TEST_CASE("A window in a file of another architecture holds for all layers") {
  const auto config = Read(Changed(
      {}, {{}, [](GgufWriter& writer) { writer.AddUint32("llama.attention.sliding_window", 4096); }}));
  REQUIRE(config.ok());
  CHECK(config->sliding_window == 4096);
  CHECK(config->layer_is_windowed == std::vector<bool>{true, true});
}

TEST_CASE("Unknown values are refused, listing the known ones") {
  CheckRefused(Changed({}, {{"general.architecture"},
                            [](GgufWriter& writer) { writer.AddString("general.architecture", "mamba\n"); }}),
               kUnimplemented, "architecture 'mamba_' is not supported; known: gemma3, llama, qwen2, qwen3");
  CheckRefused(Changed({}, {{"general.architecture"}}), kInvalid, "'general.architecture' is missing");
  CheckRefused(
      Changed({}, {{}, [](GgufWriter& writer) { writer.AddString("llama.rope.scaling.type", "yarn"); }}),
      kUnimplemented, "'llama.rope.scaling.type' is 'yarn', which is not supported; known: linear, none");
  CheckRefused(Changed({}, {{}, [](GgufWriter& writer) { writer.AddUint32("llama.expert_count", 8); }}),
               kUnimplemented, "'llama.expert_count' is 8");
  CheckRefused(Changed({}, {{},
                            [](GgufWriter& writer) {
                              writer.AddTensor("blk.0.attn_output.bias", devices::TensorType::kF32, {64},
                                               Bytes(256));
                            }}),
               kUnimplemented, "tensor 'blk.0.attn_output.bias' has no place in architecture 'llama'");
}

TEST_CASE("Numbers out of range name key and bound") {
  for (const uint32_t value : {0u, 1025u, 4294967295u}) CheckKey({}, "llama.block_count", value);
  CheckKey({}, "llama.context_length", 0);
  CheckKey({}, "llama.embedding_length", 0);
  CheckKey({}, "llama.embedding_length", 1u << 20);
  CheckKey({}, "llama.feed_forward_length", 0);
  CheckKey({}, "llama.attention.head_count", 0);
  CheckKey({}, "llama.attention.head_count_kv", 0);
  CheckKey({}, "llama.attention.head_count_kv", 3);
  CheckKey({}, "llama.attention.head_count_kv", 8);
  CheckKey({}, "llama.attention.key_length", 0);
  CheckKey({}, "llama.attention.value_length", 8);
  CheckKey({}, "llama.rope.dimension_count", 18);
  CheckKey({}, "llama.rope.dimension_count", 7);
  TinyModelOptions gemma3;
  gemma3.architecture = "gemma3";
  CheckKey(gemma3, "gemma3.attention.sliding_window", 0);

  const auto with_float = [](const std::string& key, float value) {
    return Changed({}, {{key}, [&](GgufWriter& writer) { writer.AddFloat32(key, value); }});
  };
  for (const float value : {0.0f, -1.0f, 2.0f, std::nanf("")}) {
    CheckRefused(with_float("llama.attention.layer_norm_rms_epsilon", value), kInvalid,
                 "layer_norm_rms_epsilon");
  }
  for (const float value : {0.0f, -1.0f, INFINITY, std::nanf("")}) {
    CheckRefused(with_float("llama.rope.freq_base", value), kInvalid, "rope.freq_base");
  }
  CheckRefused(Changed({}, {{},
                            [](GgufWriter& writer) {
                              writer.AddString("llama.rope.scaling.type", "linear");
                              writer.AddFloat32("llama.rope.scaling.factor", -1.0f);
                            }}),
               kInvalid, "'llama.rope.scaling.factor' is -1");
  CheckRefused(Changed({}, {{"llama.attention.key_length", "llama.attention.value_length",
                             "llama.attention.head_count", "llama.attention.head_count_kv"},
                            [](GgufWriter& writer) { writer.AddUint32("llama.attention.head_count", 5); }}),
               kInvalid, "'llama.attention.key_length' is missing");
  CheckRefused(Changed({}, {{"llama.block_count"}}), kInvalid, "'llama.block_count' is missing");
  CheckRefused(Changed({}, {{"llama.block_count"},
                            [](GgufWriter& writer) { writer.AddString("llama.block_count", "2"); }}),
               kInvalid, "'llama.block_count' is a string");
}

TEST_CASE("Every missing tensor is named, and every shape is checked") {
  for (const char* architecture : {"llama", "qwen2", "qwen3", "gemma3"}) {
    TinyModelOptions options;
    options.architecture = architecture;
    const Bytes bytes = testing::TinyModel(options);
    const auto file = GgufFile::Parse(bytes, "tiny.gguf", {});
    for (const GgufTensor& tensor : (*file)->tensors()) {
      CheckRefused(Changed(options, {{tensor.name}}), kInvalid, "tensor '" + tensor.name + "' is missing");
      const Edit longer = [&](GgufWriter& writer) {
        std::vector<int64_t> dims = tensor.dims;
        ++dims.back();
        const size_t row_bytes = tensor.data.size() / static_cast<size_t>(tensor.dims.back());
        Bytes data(tensor.data.size() + row_bytes);
        writer.AddTensor(tensor.name, tensor.type, dims, data);
      };
      if (tensor.name == "token_embd.weight") continue;  // its rows are the vocabulary, whatever their number
      CheckRefused(Changed(options, {{tensor.name}, longer}), kInvalid,
                   "tensor '" + tensor.name + "' has shape");
    }
  }
}

TEST_CASE("Rotary factors that would break the frequencies are refused") {
  for (const float factor : {0.0f, -1.0f, INFINITY, std::nanf("")}) {
    const Edit edit = [&](GgufWriter& writer) {
      const std::vector<float> factors(8, factor);
      const auto* begin = reinterpret_cast<const std::byte*>(factors.data());
      writer.AddTensor("rope_freqs.weight", devices::TensorType::kF32, {8}, Bytes(begin, begin + 32));
    };
    CheckRefused(Changed({}, {{}, edit}), kInvalid, "tensor 'rope_freqs.weight' holds");
  }
}

TEST_CASE("A name that cannot be displayed is made displayable, and a file without a name gets its stem") {
  CHECK(Read(Changed({}, {{"general.name"}}))->name == "tiny");
  CHECK(Read(Changed({}, {{"general.name"},
                          [](GgufWriter& writer) { writer.AddString("general.name", "a\xff\nb"); }}))
            ->name == "a__b");
  const auto named = [](const std::string& name) {
    return *Read(Changed({}, {{"general.name"}, [&](GgufWriter& w) { w.AddString("general.name", name); }}));
  };
  CHECK(named("a\nb").name_problem == "has a control character at byte 1");
  CHECK(named("Mod\u00e8le \u901a").name == "Mod\u00e8le \u901a");
  CHECK(named("Mod\u00e8le \u901a").name_problem.empty());
}

TEST_CASE("The rotary table agrees with sines and cosines of the angles") {
  const std::vector<float> factors = {1.0f, 2.0f, 3.0f, 4.0f};
  const RotaryTable table(8, 10000.0, 2.0, factors, 3000);
  std::vector<float> row(8);
  for (const int64_t position : {0, 1, 255, 256, 257, 2999, 3071, 3072, 1000000}) {
    table.Fill(position, row.data());
    for (size_t i = 0; i < 4; ++i) {
      const double angle = static_cast<double>(position) * std::pow(10000.0, -static_cast<double>(i) / 4) /
                           2.0 / static_cast<double>(factors[i]);
      CHECK(std::abs(row[2 * i] - std::cos(angle)) < 6e-8);
      CHECK(std::abs(row[2 * i + 1] - std::sin(angle)) < 6e-8);
    }
  }
}

}  // namespace mnemo::model
