#include "tests/support/tiny_model.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <stdexcept>

#include "tests/support/gguf_writer.h"

namespace mnemo::testing {
namespace {

using devices::TensorType;

constexpr std::string_view kChatml =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + "
    "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

// SplitMix64 (Steele, Lea, Flood 2014): the same numbers on every machine, unlike the distributions of
// <random>.
class Random {
 public:
  Random(uint64_t seed, std::string_view stream) : state_(seed) {
    for (const char c : stream) state_ = Next() ^ static_cast<unsigned char>(c);
  }
  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  // Uniform in [-1, 1), in steps of 2^-23.
  float Symmetric() { return static_cast<float>(static_cast<int64_t>(Next() >> 40) - (1 << 23)) * 0x1p-23f; }
  uint8_t Byte() { return static_cast<uint8_t>(Next() >> 56); }

 private:
  uint64_t state_;
};

class BlockWriter {
 public:
  explicit BlockWriter(std::byte* out) : out_(out) {}
  void Half(float value) {
    const uint16_t half = devices::FloatToHalf(value);
    std::memcpy(out_, &half, sizeof(half));
    out_ += sizeof(half);
  }
  void Byte(uint8_t value) { *out_++ = static_cast<std::byte>(value); }
  void RandomBytes(Random& random, int count) {
    for (int i = 0; i < count; ++i) Byte(random.Byte());
  }

 private:
  std::byte* out_;
};

// Random 6-bit scales of the eight sub-blocks of Q4_K and Q5_K, each minimum equal to its scale.
void WriteSubBlockScales(Random& random, BlockWriter& out) {
  uint8_t scales[8];
  for (uint8_t& scale : scales) scale = static_cast<uint8_t>(32 + random.Byte() % 32);
  for (int repeat = 0; repeat < 2; ++repeat) {
    for (int j = 0; j < 4; ++j) out.Byte(static_cast<uint8_t>(scales[j] | (scales[j + 4] >> 4 << 6)));
  }
  for (int j = 0; j < 4; ++j)
    out.Byte(static_cast<uint8_t>((scales[j + 4] & 15) | (scales[j + 4] & 15) << 4));
}

// One block whose values are near uniform, centred on about 0, with standard deviation `deviation`. The
// divisors are the standard deviations of uniform integers of that many bits (times the mean scale 47.5 of a
// sub-block).
void WriteBlock(TensorType type, float deviation, Random& random, std::byte* block) {
  BlockWriter out(block);
  const float d4 = deviation / 4.61f;
  const float d5 = deviation / 9.23f;
  switch (type) {
    case TensorType::kQ8_0:
      out.Half(deviation / 73.9f);
      out.RandomBytes(random, 32);
      return;
    case TensorType::kQ4_0:
      out.Half(d4);
      out.RandomBytes(random, 16);
      return;
    case TensorType::kQ4_1:
      out.Half(d4);
      out.Half(-7.5f * d4);
      out.RandomBytes(random, 16);
      return;
    case TensorType::kQ5_0:
      out.Half(d5);
      out.RandomBytes(random, 4 + 16);
      return;
    case TensorType::kQ5_1:
      out.Half(d5);
      out.Half(-15.5f * d5);
      out.RandomBytes(random, 4 + 16);
      return;
    case TensorType::kQ4_K:
      out.Half(d4 / 47.5f);
      out.Half(7.5f * d4 / 47.5f);
      WriteSubBlockScales(random, out);
      out.RandomBytes(random, 128);
      return;
    case TensorType::kQ5_K:
      out.Half(d5 / 47.5f);
      out.Half(15.5f * d5 / 47.5f);
      WriteSubBlockScales(random, out);
      out.RandomBytes(random, 32 + 128);
      return;
    case TensorType::kQ6_K:
      out.RandomBytes(random, 128 + 64);
      for (int i = 0; i < 16; ++i) out.Byte(static_cast<uint8_t>(32 + random.Byte() % 32));
      out.Half(deviation / 18.5f / 47.5f);
      return;
    default:
      throw std::runtime_error("not a block type");
  }
}

std::vector<std::byte> RandomData(TensorType type, int64_t elements, float mean, float deviation,
                                  Random& random) {
  const devices::TensorTypeTraits& traits = devices::Traits(type);
  std::vector<std::byte> data(static_cast<size_t>(elements / traits.block_elements * traits.block_bytes));
  for (size_t at = 0; at < data.size(); at += static_cast<size_t>(traits.block_bytes)) {
    if (traits.block_elements > 1) {
      WriteBlock(type, deviation, random, data.data() + at);
      continue;
    }
    // Uniform: deviation = half-width / sqrt(3).
    const float value = mean + deviation * 1.7320508f * random.Symmetric();
    if (type == TensorType::kF32) {
      std::memcpy(data.data() + at, &value, sizeof(value));
    } else {
      const uint16_t bits =
          type == TensorType::kF16 ? devices::FloatToHalf(value) : devices::FloatToBfloat16(value);
      std::memcpy(data.data() + at, &bits, sizeof(bits));
    }
  }
  return data;
}

// Bytes as the printable characters of byte-level BPE (GPT-2).
std::string ByteLevelToken(int byte) {
  const auto printable = [](int b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; };
  int code_point = byte;
  if (!printable(byte)) {
    code_point = 256;
    for (int b = 0; b < byte; ++b) code_point += printable(b) ? 0 : 1;
  }
  if (code_point < 0x80) return std::string(1, static_cast<char>(code_point));
  return {static_cast<char>(0xc0 | code_point >> 6), static_cast<char>(0x80 | (code_point & 0x3f))};
}

void AddVocabulary(GgufWriter& writer) {
  std::vector<std::string> tokens;
  std::vector<int32_t> kinds;
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back(ByteLevelToken(byte));
    kinds.push_back(1);
  }
  for (const char* control : {"<|im_start|>", "<|im_end|>", "<|endoftext|>"}) {
    tokens.push_back(control);
    kinds.push_back(3);
  }
  writer.AddString("tokenizer.ggml.model", "gpt2");
  writer.AddString("tokenizer.ggml.pre", "gpt-2");
  writer.AddStrings("tokenizer.ggml.tokens", tokens);
  writer.AddInts("tokenizer.ggml.token_type", kinds);
  writer.AddStrings("tokenizer.ggml.merges", {});
  writer.AddUint32("tokenizer.ggml.bos_token_id", 258);
  writer.AddUint32("tokenizer.ggml.eos_token_id", 257);
  writer.AddBool("tokenizer.ggml.add_bos_token", false);
  writer.AddString("tokenizer.chat_template", kChatml);
}

void AddConfig(const TinyModelOptions& options, GgufWriter& writer) {
  const std::string& arch = options.architecture;
  const auto add = [&](std::string_view key, int value) {
    writer.AddUint32(arch + std::string(key), static_cast<uint32_t>(value));
  };
  writer.AddString("general.architecture", arch);
  writer.AddString("general.name", "tiny-" + arch);
  add(".block_count", options.layers);
  add(".context_length", options.context_tokens);
  add(".embedding_length", options.dim);
  add(".feed_forward_length", options.ffn_dim);
  add(".attention.head_count", options.heads);
  add(".attention.head_count_kv", options.kv_heads);
  add(".attention.key_length", options.head_dim);
  add(".attention.value_length", options.head_dim);
  writer.AddFloat32(arch + ".attention.layer_norm_rms_epsilon", 1e-6f);
  if (arch == "llama") add(".rope.dimension_count", options.head_dim);
  if (arch == "gemma3") add(".attention.sliding_window", options.sliding_window);
  writer.AddFloat32(arch + ".rope.freq_base", arch == "gemma3" ? 1000000.0f : 10000.0f);
}

class TensorAdder {
 public:
  TensorAdder(const TinyModelOptions& options, GgufWriter& writer) : options_(options), writer_(writer) {}

  // With inputs of unit size, outputs have about the size `gain`.
  void Matrix(const std::string& name, int64_t rows, int64_t cols, float gain = 1.0f) {
    TensorType type = options_.matrix_type;
    if (cols % devices::Traits(type).block_elements != 0) type = TensorType::kF32;
    Random random(options_.seed, name);
    const float deviation = gain / std::sqrt(static_cast<float>(cols));
    writer_.AddTensor(name, type, {cols, rows}, RandomData(type, rows * cols, 0.0f, deviation, random));
  }
  void Vector(const std::string& name, int64_t cols, float mean, float deviation) {
    Random random(options_.seed, name);
    writer_.AddTensor(name, TensorType::kF32, {cols},
                      RandomData(TensorType::kF32, cols, mean, deviation, random));
  }
  void Norm(const std::string& name, int64_t cols) { Vector(name, cols, 1.0f, 0.2f); }

 private:
  const TinyModelOptions& options_;
  GgufWriter& writer_;
};

void AddLayer(const TinyModelOptions& options, int layer, TensorAdder& add) {
  const std::string prefix = fmt::format("blk.{}.", layer);
  const std::string& arch = options.architecture;
  const int64_t q_dim = static_cast<int64_t>(options.heads) * options.head_dim;
  const int64_t kv_dim = static_cast<int64_t>(options.kv_heads) * options.head_dim;
  add.Norm(prefix + "attn_norm.weight", options.dim);
  add.Matrix(prefix + "attn_q.weight", q_dim, options.dim, 1.5f);
  add.Matrix(prefix + "attn_k.weight", kv_dim, options.dim, 1.5f);
  add.Matrix(prefix + "attn_v.weight", kv_dim, options.dim);
  add.Matrix(prefix + "attn_output.weight", options.dim, q_dim);
  if (arch == "qwen2") {
    add.Vector(prefix + "attn_q.bias", q_dim, 0.0f, 0.3f);
    add.Vector(prefix + "attn_k.bias", kv_dim, 0.0f, 0.3f);
    add.Vector(prefix + "attn_v.bias", kv_dim, 0.0f, 0.3f);
  }
  if (arch == "qwen3" || arch == "gemma3") {
    add.Norm(prefix + "attn_q_norm.weight", options.head_dim);
    add.Norm(prefix + "attn_k_norm.weight", options.head_dim);
  }
  add.Norm(prefix + "ffn_norm.weight", options.dim);
  add.Matrix(prefix + "ffn_gate.weight", options.ffn_dim, options.dim);
  add.Matrix(prefix + "ffn_up.weight", options.ffn_dim, options.dim);
  add.Matrix(prefix + "ffn_down.weight", options.dim, options.ffn_dim, 2.0f);
  if (arch == "gemma3") {
    add.Norm(prefix + "post_attention_norm.weight", options.dim);
    add.Norm(prefix + "post_ffw_norm.weight", options.dim);
  }
}

GgufWriter Writer(const TinyModelOptions& options) {
  GgufWriter writer;
  AddConfig(options, writer);
  AddVocabulary(writer);
  TensorAdder add(options, writer);
  add.Matrix("token_embd.weight", kTinyVocabulary, options.dim, 2.0f);
  if (options.rope_factors) {
    std::vector<float> factors(static_cast<size_t>(options.head_dim / 2));
    for (size_t i = 0; i < factors.size(); ++i) factors[i] = 1.0f + 0.75f * static_cast<float>(i);
    std::vector<std::byte> data(factors.size() * sizeof(float));
    std::memcpy(data.data(), factors.data(), data.size());
    writer.AddTensor("rope_freqs.weight", TensorType::kF32, {options.head_dim / 2}, std::move(data));
  }
  for (int layer = 0; layer < options.layers; ++layer) AddLayer(options, layer, add);
  add.Norm("output_norm.weight", options.dim);
  if (!options.tied_output) add.Matrix("output.weight", kTinyVocabulary, options.dim, 2.0f);
  return writer;
}

}  // namespace

std::vector<std::byte> TinyModel(const TinyModelOptions& options) { return Writer(options).Bytes(); }

std::string WriteTinyModel(const TinyModelOptions& options, const std::string& folder) {
  const std::string path = fmt::format("{}/tiny-{}-{}.gguf", folder, options.architecture, options.seed);
  Writer(options).WriteFile(path);
  return path;
}

}  // namespace mnemo::testing
