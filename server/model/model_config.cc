#include "server/model/model_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string_view>

namespace mnemo::model {
namespace {

using devices::RotaryStyle;
using devices::TensorRole;

// What sets one architecture apart from another, beyond what the file says.
struct Architecture {
  std::string_view name;
  RotaryStyle rotary_style;
  bool qkv_bias;  // required; where false, biases are used if the file has them
  bool qk_norm;
  bool post_norms;
  bool gelu;
  bool scaled_embedding;     // by sqrt(dim)
  bool alternating_windows;  // most layers see a sliding window, with a rotary base of their own
};

constexpr std::array kArchitectures = {
    Architecture{.name = "gemma3",
                 .rotary_style = RotaryStyle::kHalves,
                 .qkv_bias = false,
                 .qk_norm = true,
                 .post_norms = true,
                 .gelu = true,
                 .scaled_embedding = true,
                 .alternating_windows = true},
    // Llama, Mistral and SmolLM2. GGUF stores their q and k rows permuted so that rotated pairs are
    // neighbours.
    Architecture{.name = "llama", .rotary_style = RotaryStyle::kInterleaved},
    Architecture{.name = "qwen2", .rotary_style = RotaryStyle::kHalves, .qkv_bias = true},
    Architecture{.name = "qwen3", .rotary_style = RotaryStyle::kHalves, .qk_norm = true},
};

// Bounds: well above published models, low enough that no product of them overflows an int.
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxDim = 1 << 16;
constexpr int64_t kMaxFfnDim = 1 << 20;
constexpr int64_t kMaxHeads = 1024;
constexpr int64_t kMaxHeadDim = 1024;
constexpr int64_t kMaxContextTokens = 1 << 24;
constexpr int64_t kMaxVocabulary = 1 << 24;
constexpr double kMaxTheta = 1e12;
constexpr int64_t kDefaultWindowPeriod = 6;  // gemma3: every sixth layer attends to all positions
constexpr int64_t kGemma3Layers27B = 62;

// The keys of one architecture, "<architecture>.<key>", each with its range.
class Keys {
 public:
  Keys(const GgufFile& file, std::string_view architecture)
      : file_(file), prefix_(std::string(architecture) + ".") {}

  std::string Name(std::string_view key) const { return prefix_ + std::string(key); }
  bool Has(std::string_view key) const { return file_.Find(Name(key)) != nullptr; }

  absl::StatusOr<int> Int(std::string_view key, int64_t min, int64_t max) const {
    const absl::StatusOr<int64_t> value = file_.GetInt(Name(key));
    if (!value.ok()) return AsInvalid(value.status());
    if (*value < min || *value > max) {
      return InvalidArgument("{}: key '{}' is {}; {} to {} is allowed", file_.path(), Name(key), *value, min,
                             max);
    }
    return static_cast<int>(*value);
  }
  absl::StatusOr<int> IntOr(std::string_view key, int64_t min, int64_t max, int fallback) const {
    return Has(key) ? Int(key, min, max) : fallback;
  }

  absl::StatusOr<double> Float(std::string_view key, double min, double max) const {
    const absl::StatusOr<double> value = file_.GetFloat(Name(key));
    if (!value.ok()) return AsInvalid(value.status());
    if (!(*value >= min && *value <= max)) {  // also refuses NaN
      return InvalidArgument("{}: key '{}' is {}; {} to {} is allowed", file_.path(), Name(key), *value, min,
                             max);
    }
    return *value;
  }
  absl::StatusOr<double> FloatOr(std::string_view key, double min, double max, double fallback) const {
    return Has(key) ? Float(key, min, max) : fallback;
  }

  // A key that a needed value is missing from is a bad file, not a thing that was looked for and not found.
  static absl::Status AsInvalid(const absl::Status& status) {
    return absl::InvalidArgumentError(status.message());
  }

 private:
  const GgufFile& file_;
  std::string prefix_;
};

std::string PrintableName(std::string_view name) {
  std::string printable(name.substr(0, 256));
  for (char& c : printable) {
    if (c < 0x20 || c > 0x7e) c = '_';
  }
  return printable;
}

absl::StatusOr<const Architecture*> FindArchitecture(const GgufFile& file) {
  const absl::StatusOr<std::string_view> name = file.GetString("general.architecture");
  if (!name.ok()) return Keys::AsInvalid(name.status());
  std::vector<std::string_view> known;
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.name == *name) return &architecture;
    known.push_back(architecture.name);
  }
  return Unimplemented("{}: architecture '{}' is not supported; known: {}", file.path(), PrintableName(*name),
                       fmt::join(known, ", "));
}

absl::Status ReadSizes(const GgufFile& file, const Keys& keys, ModelConfig& config) {
  MNEMO_ASSIGN_OR_RETURN(config.layers, keys.Int("block_count", 1, kMaxLayers));
  MNEMO_ASSIGN_OR_RETURN(config.context_tokens, keys.Int("context_length", 1, kMaxContextTokens));
  MNEMO_ASSIGN_OR_RETURN(config.dim, keys.Int("embedding_length", 1, kMaxDim));
  MNEMO_ASSIGN_OR_RETURN(config.ffn_dim, keys.Int("feed_forward_length", 1, kMaxFfnDim));
  MNEMO_ASSIGN_OR_RETURN(config.heads, keys.Int("attention.head_count", 1, kMaxHeads));
  MNEMO_ASSIGN_OR_RETURN(config.kv_heads,
                         keys.IntOr("attention.head_count_kv", 1, config.heads, config.heads));
  if (config.heads % config.kv_heads != 0) {
    return InvalidArgument("{}: key '{}' is {}, which does not divide the {} of '{}'", file.path(),
                           keys.Name("attention.head_count_kv"), config.kv_heads, config.heads,
                           keys.Name("attention.head_count"));
  }
  if (keys.Has("attention.key_length")) {
    MNEMO_ASSIGN_OR_RETURN(config.head_dim, keys.Int("attention.key_length", 2, kMaxHeadDim));
  } else {
    config.head_dim = config.dim / config.heads;
    if (config.head_dim * config.heads != config.dim || config.head_dim > kMaxHeadDim) {
      return InvalidArgument("{}: '{}' {} is no multiple of '{}' {} of at most {}, and '{}' is missing",
                             file.path(), keys.Name("embedding_length"), config.dim,
                             keys.Name("attention.head_count"), config.heads, kMaxHeadDim,
                             keys.Name("attention.key_length"));
    }
  }
  MNEMO_RETURN_IF_ERROR(
      keys.IntOr("attention.value_length", config.head_dim, config.head_dim, config.head_dim).status());
  MNEMO_ASSIGN_OR_RETURN(const double norm_eps, keys.Float("attention.layer_norm_rms_epsilon", 1e-12, 1.0));
  config.norm_eps = static_cast<float>(norm_eps);
  return absl::OkStatus();
}

// Positions divided by a factor, or left alone. (Llama 3's own scaling is in rope_freqs.weight.)
absl::StatusOr<double> ReadLinearScale(const GgufFile& file, const Keys& keys) {
  constexpr double kMinScale = 1e-3;
  constexpr double kMaxScale = 1e6;
  const std::string key = keys.Name("rope.scaling.type");
  if (file.Find(key) == nullptr) return keys.FloatOr("rope.scale_linear", kMinScale, kMaxScale, 1.0);
  MNEMO_ASSIGN_OR_RETURN(const std::string_view type, file.GetString(key));
  if (type == "none") return 1.0;
  if (type == "linear") return keys.Float("rope.scaling.factor", kMinScale, kMaxScale);
  return Unimplemented("{}: key '{}' is '{}', which is not supported; known: linear, none", file.path(), key,
                       PrintableName(type));
}

absl::Status ReadRotary(const GgufFile& file, const Keys& keys, ModelConfig& config) {
  MNEMO_ASSIGN_OR_RETURN(config.rotary_dims,
                         keys.IntOr("rope.dimension_count", 2, config.head_dim, config.head_dim));
  if (config.rotary_dims % 2 != 0) {
    return InvalidArgument(
        "{}: {} dimensions of a head are to be rotated (key '{}'); an even count is needed", file.path(),
        config.rotary_dims, keys.Name("rope.dimension_count"));
  }
  MNEMO_ASSIGN_OR_RETURN(config.rope_theta, keys.FloatOr("rope.freq_base", 1.0, kMaxTheta, 10000.0));
  MNEMO_ASSIGN_OR_RETURN(config.rope_linear_scale, ReadLinearScale(file, keys));
  return absl::OkStatus();
}

absl::Status ReadWindows(const GgufFile& file, const Keys& keys, const Architecture& architecture,
                         ModelConfig& config) {
  config.layer_is_windowed.assign(static_cast<size_t>(config.layers), false);
  if (!architecture.alternating_windows) {
    MNEMO_ASSIGN_OR_RETURN(config.sliding_window,
                           keys.IntOr("attention.sliding_window", 0, kMaxContextTokens, 0));
    config.layer_is_windowed.assign(static_cast<size_t>(config.layers), config.sliding_window > 0);
    return absl::OkStatus();
  }
  MNEMO_ASSIGN_OR_RETURN(config.sliding_window, keys.Int("attention.sliding_window", 1, kMaxContextTokens));
  MNEMO_ASSIGN_OR_RETURN(config.rope_theta_local,
                         keys.FloatOr("rope.freq_base_swa", 1.0, kMaxTheta, 10000.0));
  const std::string pattern_key = keys.Name("attention.sliding_window_pattern");
  const GgufValue* pattern = file.Find(pattern_key);
  if (pattern != nullptr && std::holds_alternative<std::vector<bool>>(*pattern)) {
    config.layer_is_windowed = std::get<std::vector<bool>>(*pattern);
    if (config.layer_is_windowed.size() == static_cast<size_t>(config.layers)) return absl::OkStatus();
    return InvalidArgument("{}: key '{}' has {} entries for {} layers", file.path(), pattern_key,
                           config.layer_is_windowed.size(), config.layers);
  }
  MNEMO_ASSIGN_OR_RETURN(const int period, keys.IntOr("attention.sliding_window_pattern", 1, kMaxLayers + 1,
                                                      static_cast<int>(kDefaultWindowPeriod)));
  for (int layer = 0; layer < config.layers; ++layer) {
    config.layer_is_windowed[static_cast<size_t>(layer)] = (layer + 1) % period != 0;
  }
  return absl::OkStatus();
}

// 1/sqrt(head_dim), but Gemma 3 27B was trained with 1/sqrt(dim / heads), which older files do not say.
absl::StatusOr<float> ReadAttentionScale(const Keys& keys, const ModelConfig& config) {
  double divisor = config.head_dim;
  if (config.architecture == "gemma3" && config.layers == kGemma3Layers27B) {
    divisor = static_cast<double>(config.dim) / config.heads;
  }
  MNEMO_ASSIGN_OR_RETURN(const double scale, keys.FloatOr("attention.scale", 0.0, 1e6, 0.0));
  return static_cast<float>(scale > 0 ? scale : 1.0 / std::sqrt(divisor));  // 0 in a file means the default
}

// Parts of relatives of our architectures that share their name but compute something else.
absl::Status RefuseUnsupported(const GgufFile& file, const Keys& keys) {
  for (const std::string_view key :
       {"expert_count", "attn_logit_softcapping", "final_logit_softcapping", "attention.temperature_scale",
        "residual_scale", "embedding_scale", "logit_scale"}) {
    if (!keys.Has(key)) continue;
    MNEMO_ASSIGN_OR_RETURN(const double value, file.GetFloat(keys.Name(key)));
    if (value != 0) {
      return Unimplemented("{}: key '{}' is {}; only 0, or no such key, is supported", file.path(),
                           keys.Name(key), value);
    }
  }
  return absl::OkStatus();
}

// One tensor that the model needs.
struct Wanted {
  std::string name;
  TensorRole role;
  int64_t rows;
  int64_t cols;
};

std::vector<Wanted> WantedTensors(const ModelConfig& config) {
  std::vector<Wanted> wanted;
  const auto matrix = [&](std::string name, int64_t rows, int64_t cols) {
    wanted.push_back({std::move(name), TensorRole::kMatrix, rows, cols});
  };
  const auto vector = [&](std::string name, int64_t cols) {
    wanted.push_back({std::move(name), TensorRole::kVector, 1, cols});
  };
  const int64_t dim = config.dim;
  const int64_t q_dim = static_cast<int64_t>(config.heads) * config.head_dim;
  const int64_t kv_dim = static_cast<int64_t>(config.kv_heads) * config.head_dim;
  matrix("token_embd.weight", config.vocabulary, dim);
  if (!config.tied_output) matrix("output.weight", config.vocabulary, dim);
  vector("output_norm.weight", dim);
  for (int layer = 0; layer < config.layers; ++layer) {
    const std::string prefix = fmt::format("blk.{}.", layer);
    vector(prefix + "attn_norm.weight", dim);
    matrix(prefix + "attn_q.weight", q_dim, dim);
    matrix(prefix + "attn_k.weight", kv_dim, dim);
    matrix(prefix + "attn_v.weight", kv_dim, dim);
    matrix(prefix + "attn_output.weight", dim, q_dim);
    if (config.qkv_bias) {
      vector(prefix + "attn_q.bias", q_dim);
      vector(prefix + "attn_k.bias", kv_dim);
      vector(prefix + "attn_v.bias", kv_dim);
    }
    if (config.qk_norm) {
      vector(prefix + "attn_q_norm.weight", config.head_dim);
      vector(prefix + "attn_k_norm.weight", config.head_dim);
    }
    if (config.post_norms) {
      vector(prefix + "post_attention_norm.weight", dim);
      vector(prefix + "post_ffw_norm.weight", dim);
    }
    vector(prefix + "ffn_norm.weight", dim);
    matrix(prefix + "ffn_gate.weight", config.ffn_dim, dim);
    matrix(prefix + "ffn_up.weight", config.ffn_dim, dim);
    matrix(prefix + "ffn_down.weight", dim, config.ffn_dim);
  }
  return wanted;
}

absl::Status CheckShape(const GgufFile& file, const Wanted& wanted) {
  const GgufTensor* tensor = file.FindTensor(wanted.name);
  if (tensor == nullptr) return InvalidArgument("{}: tensor '{}' is missing", file.path(), wanted.name);
  std::vector<int64_t> dims = tensor->dims;
  while (dims.size() > 1 && dims.back() == 1) dims.pop_back();  // trailing dimensions of 1 say nothing
  std::vector<int64_t> expected = {wanted.cols};
  if (wanted.rows != 1) expected.push_back(wanted.rows);
  if (dims != expected) {
    return InvalidArgument("{}: tensor '{}' has shape [{}]; [{}] is expected", file.path(), wanted.name,
                           fmt::join(tensor->dims, ", "), fmt::join(expected, ", "));
  }
  return absl::OkStatus();
}

// Every tensor that the model needs is there with its shape, and none that would be left out of the
// computation.
absl::Status CheckTensors(const GgufFile& file, const ModelConfig& config) {
  std::set<std::string, std::less<>> known = {"rope_freqs.weight"};
  for (const Wanted& wanted : WantedTensors(config)) {
    MNEMO_RETURN_IF_ERROR(CheckShape(file, wanted));
    known.insert(wanted.name);
  }
  for (const GgufTensor& tensor : file.tensors()) {
    if (!known.contains(tensor.name)) {
      return Unimplemented("{}: tensor '{}' has no place in architecture '{}' as it is known here",
                           file.path(), PrintableName(tensor.name), config.architecture);
    }
  }
  return absl::OkStatus();
}

absl::Status ReadRopeFactors(const GgufFile& file, ModelConfig& config) {
  const GgufTensor* tensor = file.FindTensor("rope_freqs.weight");
  if (tensor == nullptr) return absl::OkStatus();
  MNEMO_RETURN_IF_ERROR(CheckShape(file, {tensor->name, TensorRole::kVector, 1, config.rotary_dims / 2}));
  config.rope_factors.resize(static_cast<size_t>(config.rotary_dims / 2));
  devices::Dequantize(tensor->type, tensor->data, config.rope_factors);
  for (const float factor : config.rope_factors) {
    if (!(factor >= 1e-6f && factor <= 1e6f)) {
      return InvalidArgument("{}: tensor '{}' holds {}; 1e-06 to 1e+06 is allowed", file.path(), tensor->name,
                             factor);
    }
  }
  return absl::OkStatus();
}

absl::Status ReadVocabulary(const GgufFile& file, ModelConfig& config) {
  const GgufTensor* table = file.FindTensor("token_embd.weight");
  if (table == nullptr) {
    return InvalidArgument(
        "{}: tensor 'token_embd.weight' is missing: the file has a vocabulary only, or is no model",
        file.path());
  }
  const int64_t rows = table->dims.size() >= 2 ? table->dims[1] : 1;
  if (rows > kMaxVocabulary) {
    return InvalidArgument("{}: tensor 'token_embd.weight' has {} rows; at most {} are allowed", file.path(),
                           rows, kMaxVocabulary);
  }
  config.vocabulary = static_cast<int>(rows);
  config.tied_output = file.FindTensor("output.weight") == nullptr;
  return absl::OkStatus();
}

void Describe(const GgufFile& file, ModelConfig& config) {
  std::map<std::string_view, int64_t> matrix_bytes;
  for (const GgufTensor& tensor : file.tensors()) {
    int64_t elements = 1;
    for (const int64_t dim : tensor.dims) elements *= dim;
    config.parameters += elements;
    config.weight_bytes += static_cast<int64_t>(tensor.data.size());
    if (tensor.dims.size() > 1) {
      matrix_bytes[devices::Traits(tensor.type).name] += static_cast<int64_t>(tensor.data.size());
    }
  }
  const auto most = std::max_element(matrix_bytes.begin(), matrix_bytes.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  if (most != matrix_bytes.end()) config.quantization = most->first;
  const absl::StatusOr<std::string_view> name = file.GetString("general.name");
  config.name = PrintableName(
      name.ok() && !name->empty() ? std::string(*name) : std::filesystem::path(file.path()).stem().string());
}

}  // namespace

absl::StatusOr<ModelConfig> ReadModelConfig(const GgufFile& file) {
  MNEMO_ASSIGN_OR_RETURN(const Architecture* architecture, FindArchitecture(file));
  ModelConfig config;
  config.architecture = architecture->name;
  const Keys keys(file, architecture->name);
  MNEMO_RETURN_IF_ERROR(RefuseUnsupported(file, keys));
  MNEMO_RETURN_IF_ERROR(ReadSizes(file, keys, config));
  MNEMO_RETURN_IF_ERROR(ReadRotary(file, keys, config));
  MNEMO_RETURN_IF_ERROR(ReadWindows(file, keys, *architecture, config));
  MNEMO_ASSIGN_OR_RETURN(config.attention_scale, ReadAttentionScale(keys, config));
  config.rotary_style = architecture->rotary_style;
  config.qkv_bias = architecture->qkv_bias || file.FindTensor("blk.0.attn_q.bias") != nullptr;
  config.qk_norm = architecture->qk_norm;
  config.post_norms = architecture->post_norms;
  config.gelu = architecture->gelu;
  if (architecture->scaled_embedding) config.embedding_scale = std::sqrt(static_cast<float>(config.dim));
  MNEMO_RETURN_IF_ERROR(ReadVocabulary(file, config));
  MNEMO_RETURN_IF_ERROR(CheckTensors(file, config));
  MNEMO_RETURN_IF_ERROR(ReadRopeFactors(file, config));
  Describe(file, config);
  return config;
}

devices::KvType DefaultKvType(const ModelConfig& config) {
  constexpr int kMaxHeadDim = 128;
  return config.head_dim <= kMaxHeadDim && !config.qkv_bias ? devices::KvType::kQ8 : devices::KvType::kF16;
}

absl::StatusOr<std::vector<devices::TensorSource>> WeightSources(const GgufFile& file,
                                                                 const ModelConfig& config) {
  std::map<std::string, Wanted, std::less<>> wanted;
  for (Wanted& tensor : WantedTensors(config)) {
    MNEMO_RETURN_IF_ERROR(CheckShape(file, tensor));
    std::string name = tensor.name;
    wanted.emplace(std::move(name), std::move(tensor));
  }
  std::vector<devices::TensorSource> sources;
  for (const GgufTensor& tensor : file.tensors()) {
    const auto found = wanted.find(tensor.name);
    if (found == wanted.end()) continue;
    sources.push_back({.name = tensor.name,
                       .role = found->second.role,
                       .type = tensor.type,
                       .rows = found->second.rows,
                       .cols = found->second.cols,
                       .data = tensor.data});
  }
  return sources;
}

}  // namespace mnemo::model
