#include "server/model/model_config.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "devices/base/display_name.h"
#include "devices/base/range.h"
#include "server/model/gguf_split.h"
#include "server/model/metadata_keys.h"

namespace mnemo::model {
namespace {

using devices::RotaryStyle;
using devices::TensorRole;

// Properties of one architecture that the file does not state.
struct Architecture {
  std::string_view name;
  RotaryStyle rotary_style;
  // Biases are required; where false, they are used if the file has them.
  bool qkv_bias;
  bool qk_norm;
  bool post_norms;
  bool gelu;
  // Scaled by sqrt(dim).
  bool scaled_embedding;
  // Most layers have a sliding window, with a rotary base of their own.
  bool alternating_windows;
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
    // Llama, Mistral and SmolLM2. GGUF stores their q and k rows permuted so that rotated pairs are adjacent.
    Architecture{.name = "llama", .rotary_style = RotaryStyle::kInterleaved},
    Architecture{.name = "qwen2", .rotary_style = RotaryStyle::kHalves, .qkv_bias = true},
    Architecture{.name = "qwen3", .rotary_style = RotaryStyle::kHalves, .qk_norm = true},
};

constexpr int64_t kMaxVocabulary = 1 << 24;
constexpr int64_t kGemma3Layers27B = 62;

// The keys of one architecture, "<architecture>.<key>", each with its range and default in the table of
// metadata_keys.h.
class Keys {
 public:
  Keys(const GgufFile& file, std::string_view architecture) : file_(file), architecture_(architecture) {}

  std::string Name(std::string_view key) const { return fmt::format("{}.{}", architecture_, key); }
  bool Has(std::string_view key) const { return file_.Find(Name(key)) != nullptr; }

  absl::StatusOr<int> Int(std::string_view key) const { return Int(key, Entry(key).max); }
  // `max` is a tighter limit than the table's.
  absl::StatusOr<int> Int(std::string_view key, double max) const {
    const absl::StatusOr<int64_t> value = file_.GetInt(Name(key));
    if (!value.ok()) return AsInvalid(value.status());
    MNEMO_RETURN_IF_ERROR(CheckValue(key, static_cast<double>(*value), max));
    return static_cast<int>(*value);
  }
  absl::StatusOr<int> IntOr(std::string_view key, int fallback, double max) const {
    return Has(key) ? Int(key, max) : fallback;
  }
  absl::StatusOr<int> IntOr(std::string_view key) const { return Has(key) ? Int(key) : Default<int>(key); }

  // Reads one number, or an array with one number per layer.
  absl::StatusOr<int> IntOfLayers(std::string_view key, int layers, double max) const;
  absl::StatusOr<int> IntOfLayers(std::string_view key, int layers) const {
    return IntOfLayers(key, layers, Entry(key).max);
  }

  absl::StatusOr<double> Float(std::string_view key) const {
    const absl::StatusOr<double> value = file_.GetFloat(Name(key));
    if (!value.ok()) return AsInvalid(value.status());
    MNEMO_RETURN_IF_ERROR(CheckValue(key, *value, Entry(key).max));
    return *value;
  }
  // Returns the table's default when the key is absent; INVALID_ARGUMENT where the table has none.
  absl::StatusOr<double> FloatOr(std::string_view key) const {
    return Has(key) || Entry(key).absent == "required" ? Float(key) : Default<double>(key);
  }
  bool IsZero(std::string_view key) const {
    const absl::StatusOr<double> value = file_.GetFloat(Name(key));
    return value.ok() && *value == 0;
  }

  // A missing required key makes the file invalid, so NOT_FOUND becomes INVALID_ARGUMENT.
  static absl::Status AsInvalid(const absl::Status& status) {
    return absl::InvalidArgumentError(status.message());
  }

 private:
  const MetadataKey& Entry(std::string_view key) const {
    const MetadataKey* entry = FindMetadataKey(Name(key), architecture_);
    MNEMO_CHECK(entry != nullptr && entry->use == KeyUse::kRead);
    return *entry;
  }
  template <typename T>
  T Default(std::string_view key) const {
    T value{};
    const std::string_view text = Entry(key).absent;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    MNEMO_CHECK(error == std::errc() && end == text.data() + text.size());
    return value;
  }
  absl::Status CheckValue(std::string_view key, double value, double max) const {
    return CheckRange(fmt::format("{}: key '{}'", file_.path(), Name(key)), value, Entry(key).min, max);
  }

  const GgufFile& file_;
  std::string_view architecture_;
};

absl::StatusOr<int> Keys::IntOfLayers(std::string_view key, int layers, double max) const {
  const absl::StatusOr<std::vector<int64_t>> values = file_.GetInts(Name(key));
  if (!values.ok()) return Int(key, max);
  if (values->size() != static_cast<size_t>(layers)) {
    return InvalidArgument("{}: key '{}' has {} entries for {} layers", file_.path(), Name(key),
                           values->size(), layers);
  }
  for (const int64_t value : *values) {
    MNEMO_RETURN_IF_ERROR(CheckValue(key, static_cast<double>(value), max));
    if (value == values->front()) continue;
    return Unimplemented(
        "{}: key '{}' has {} for one layer and {} for another; one figure for all layers is supported",
        file_.path(), Name(key), values->front(), value);
  }
  return static_cast<int>(values->front());
}

// Reduces a name to ASCII for messages.
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
  MNEMO_ASSIGN_OR_RETURN(config.layers, keys.Int("block_count"));
  MNEMO_ASSIGN_OR_RETURN(config.context_tokens, keys.Int("context_length"));
  MNEMO_ASSIGN_OR_RETURN(config.dim, keys.Int("embedding_length"));
  MNEMO_ASSIGN_OR_RETURN(config.ffn_dim, keys.IntOfLayers("feed_forward_length", config.layers));
  MNEMO_ASSIGN_OR_RETURN(config.heads, keys.IntOfLayers("attention.head_count", config.layers));
  config.kv_heads = config.heads;
  if (keys.Has("attention.head_count_kv")) {
    MNEMO_ASSIGN_OR_RETURN(config.kv_heads,
                           keys.IntOfLayers("attention.head_count_kv", config.layers, config.heads));
  }
  if (config.heads % config.kv_heads != 0) {
    return InvalidArgument("{}: key '{}' is {}, which does not divide the {} of '{}'", file.path(),
                           keys.Name("attention.head_count_kv"), config.kv_heads, config.heads,
                           keys.Name("attention.head_count"));
  }
  if (keys.Has("attention.key_length")) {
    MNEMO_ASSIGN_OR_RETURN(config.head_dim, keys.Int("attention.key_length"));
  } else {
    config.head_dim = config.dim / config.heads;
    const double most = FindMetadataKey(keys.Name("attention.key_length"), config.architecture)->max;
    if (config.head_dim * config.heads != config.dim || config.head_dim > most) {
      return InvalidArgument("{}: '{}' {} is no multiple of '{}' {} of at most {}, and '{}' is missing",
                             file.path(), keys.Name("embedding_length"), config.dim,
                             keys.Name("attention.head_count"), config.heads, most,
                             keys.Name("attention.key_length"));
    }
  }
  MNEMO_ASSIGN_OR_RETURN(const int value_length, keys.IntOr("attention.value_length", config.head_dim, 1024));
  if (value_length != config.head_dim) {
    return InvalidArgument(
        "{}: key '{}' is {}, and heads of {} dimensions ('{}', or its default) are allowed the same",
        file.path(), keys.Name("attention.value_length"), value_length, config.head_dim,
        keys.Name("attention.key_length"));
  }
  MNEMO_ASSIGN_OR_RETURN(const double norm_eps, keys.Float("attention.layer_norm_rms_epsilon"));
  config.norm_eps = static_cast<float>(norm_eps);
  return absl::OkStatus();
}

// Reads the factor by which positions are divided, or 1. A factor without a type counts as linear, the
// default. (Llama 3's own scaling is in rope_freqs.weight.)
absl::StatusOr<double> ReadLinearScale(const GgufFile& file, const Keys& keys, ModelConfig& config) {
  constexpr std::string_view kFactor = "rope.scaling.factor";
  constexpr std::string_view kOldFactor = "rope.scale_linear";
  const std::string type_key = keys.Name("rope.scaling.type");
  std::string_view type = "linear";
  if (file.Find(type_key) != nullptr) {
    MNEMO_ASSIGN_OR_RETURN(type, file.GetString(type_key));
  }
  if (type != "linear" && type != "none") {
    return Unimplemented("{}: key '{}' is '{}', which is not supported; known: linear, none", file.path(),
                         type_key, PrintableName(type));
  }
  const std::string_view key = keys.Has(kFactor) ? kFactor : kOldFactor;
  double scale = 1;
  if (keys.Has(key) && !keys.IsZero(key)) {
    MNEMO_ASSIGN_OR_RETURN(scale, keys.Float(key));
  } else if (!keys.Has(key) && file.Find(type_key) != nullptr && type == "linear") {
    // A scaling without a factor: the file lost it.
    return keys.Float(kFactor).status();
  }
  if (type == "none" && scale != 1) {
    config.warnings.push_back(
        fmt::format("key '{}' is {} and not used, since '{}' is none", keys.Name(key), scale, type_key));
    return 1.0;
  }
  if (key == kFactor && keys.Has(kOldFactor)) {
    config.warnings.push_back(
        fmt::format("key '{}' is not used, since '{}' is there", keys.Name(kOldFactor), keys.Name(kFactor)));
  }
  return scale;
}

absl::Status ReadRotary(const GgufFile& file, const Keys& keys, ModelConfig& config) {
  MNEMO_ASSIGN_OR_RETURN(config.rotary_dims,
                         keys.IntOr("rope.dimension_count", config.head_dim, config.head_dim));
  if (config.rotary_dims % 2 != 0) {
    return InvalidArgument(
        "{}: {} dimensions of a head are to be rotated (key '{}'); an even count is needed", file.path(),
        config.rotary_dims, keys.Name("rope.dimension_count"));
  }
  MNEMO_ASSIGN_OR_RETURN(config.rope_theta, keys.FloatOr("rope.freq_base"));
  MNEMO_ASSIGN_OR_RETURN(config.rope_linear_scale, ReadLinearScale(file, keys, config));
  return absl::OkStatus();
}

// Reads which layers of an architecture with alternating windows have one: a period, or an entry per layer.
absl::Status ReadWindowPattern(const GgufFile& file, const Keys& keys, ModelConfig& config) {
  constexpr std::string_view kPattern = "attention.sliding_window_pattern";
  const std::string key = keys.Name(kPattern);
  const auto layers = static_cast<size_t>(config.layers);
  const GgufValue* value = file.Find(key);
  std::optional<std::vector<bool>> pattern;
  if (value != nullptr) {
    if (const auto* flags = std::get_if<std::vector<bool>>(value)) pattern = *flags;
    if (const absl::StatusOr<std::vector<int64_t>> flags = file.GetInts(key); flags.ok()) {
      pattern.emplace();
      for (const int64_t flag : *flags) {
        if (flag != 0 && flag != 1) {
          return InvalidArgument("{}: key '{}' has an entry {}; 0 and 1 are allowed", file.path(), key, flag);
        }
        pattern->push_back(flag == 1);
      }
    }
  }
  if (pattern.has_value()) {
    config.layer_is_windowed = *std::move(pattern);
    if (config.layer_is_windowed.size() == layers) return absl::OkStatus();
    return InvalidArgument("{}: key '{}' has {} entries for {} layers", file.path(), key,
                           config.layer_is_windowed.size(), config.layers);
  }
  MNEMO_ASSIGN_OR_RETURN(const int period, keys.IntOr(kPattern));
  for (size_t layer = 0; layer < layers; ++layer) {
    config.layer_is_windowed[layer] = period == 0 || (layer + 1) % static_cast<size_t>(period) != 0;
  }
  return absl::OkStatus();
}

absl::Status ReadWindows(const GgufFile& file, const Keys& keys, const Architecture& architecture,
                         ModelConfig& config) {
  if (!architecture.alternating_windows) {
    MNEMO_ASSIGN_OR_RETURN(config.sliding_window, keys.IntOr("attention.sliding_window"));
    config.layer_is_windowed.assign(static_cast<size_t>(config.layers), config.sliding_window > 0);
    return absl::OkStatus();
  }
  config.layer_is_windowed.assign(static_cast<size_t>(config.layers), false);
  MNEMO_ASSIGN_OR_RETURN(config.sliding_window, keys.Int("attention.sliding_window"));
  MNEMO_ASSIGN_OR_RETURN(config.rope_theta_local, keys.FloatOr("rope.freq_base_swa"));
  return ReadWindowPattern(file, keys, config);
}

// 1/sqrt(head_dim). Gemma 3 27B was trained with 1/sqrt(dim / heads), which older files do not state.
absl::StatusOr<float> ReadAttentionScale(const Keys& keys, const ModelConfig& config) {
  double divisor = config.head_dim;
  if (config.architecture == "gemma3" && config.layers == kGemma3Layers27B) {
    divisor = static_cast<double>(config.dim) / config.heads;
  }
  MNEMO_ASSIGN_OR_RETURN(const double scale, keys.FloatOr("attention.scale"));
  return static_cast<float>(scale > 0 ? scale : 1.0 / std::sqrt(divisor));  // 0 in a file means the default
}

// A tensor that the model needs.
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
  // Trailing dimensions of 1 carry no information.
  while (dims.size() > 1 && dims.back() == 1) dims.pop_back();
  std::vector<int64_t> expected = {wanted.cols};
  if (wanted.rows != 1) expected.push_back(wanted.rows);
  if (dims != expected) {
    return InvalidArgument("{}: tensor '{}' has shape [{}]; [{}] is expected", file.path(), wanted.name,
                           fmt::join(tensor->dims, ", "), fmt::join(expected, ", "));
  }
  return absl::OkStatus();
}

// Checks that every required tensor exists with its shape, and that no other tensor would be left out of the
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
  MNEMO_ASSIGN_OR_RETURN(const std::vector<std::byte> data, tensor->data.ReadAll());
  devices::Dequantize(tensor->type, data, config.rope_factors);
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

// Returns whether the type is a block format whose rounding is coarser than that of any 16-bit format.
bool IsCoarse(devices::TensorType type) {
  constexpr int64_t kMaxBits = 9;  // Q8_0 has 8.5 bits per weight
  const devices::TensorTypeTraits& traits = devices::Traits(type);
  return traits.block_bytes * 8 <= kMaxBits * traits.block_elements;
}

void Describe(const GgufFile& file, ModelConfig& config) {
  std::map<std::string_view, int64_t> matrix_bytes;
  int64_t layer_elements = 0, coarse_elements = 0;
  for (const GgufTensor& tensor : file.tensors()) {
    int64_t elements = 1;
    for (const int64_t dim : tensor.dims) elements *= dim;
    config.parameters += elements;
    config.weight_bytes += static_cast<int64_t>(tensor.data.size());
    if (tensor.dims.size() <= 1) continue;
    matrix_bytes[devices::Traits(tensor.type).name] += static_cast<int64_t>(tensor.data.size());
    if (!tensor.name.starts_with("blk.")) continue;
    layer_elements += elements;
    if (IsCoarse(tensor.type)) coarse_elements += elements;
  }
  if (layer_elements > 0) {
    config.coarse_share = static_cast<double>(coarse_elements) / static_cast<double>(layer_elements);
  }
  const auto most = std::max_element(matrix_bytes.begin(), matrix_bytes.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  if (most != matrix_bytes.end()) config.quantization = most->first;
  const absl::StatusOr<std::string_view> name = file.GetString("general.name");
  if (name.ok() && !name->empty()) {
    config.name = SafeName(*name);
    config.name_problem = NameProblem(*name);
  } else {
    config.name = SafeName(ModelStem(file.path()));
  }
}

}  // namespace

absl::StatusOr<ModelConfig> ReadModelConfig(const GgufFile& file) {
  MNEMO_ASSIGN_OR_RETURN(const Architecture* architecture, FindArchitecture(file));
  ModelConfig config;
  config.architecture = architecture->name;
  const Keys keys(file, architecture->name);
  MNEMO_RETURN_IF_ERROR(CheckModelKeys(file, architecture->name));
  config.warnings = MetadataWarnings(file, architecture->name);
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
  const bool is_narrow = config.head_dim <= kMaxHeadDim;
  return is_narrow && !config.qkv_bias && config.coarse_share > 0.5 ? devices::KvType::kQ8
                                                                    : devices::KvType::kF16;
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
