#include "server/model/transformer.h"

#include <algorithm>
#include <optional>
#include <string>
#include <type_traits>
#include <variant>

#include "devices/base/range.h"
#include "server/model/rotary_table.h"

namespace mnemo::model {
namespace {

using devices::AttentionOp;
using devices::AttentionSequence;
using devices::EmbedOp;
using devices::MatMulEpilogue;
using devices::MatMulOp;
using devices::NormOp;
using devices::PackedTensor;
using devices::RotaryStoreOp;

struct Layer {
  const PackedTensor* attn_norm = nullptr;
  const PackedTensor* q = nullptr;
  const PackedTensor* k = nullptr;
  const PackedTensor* v = nullptr;
  const PackedTensor* q_bias = nullptr;
  const PackedTensor* k_bias = nullptr;
  const PackedTensor* v_bias = nullptr;
  const PackedTensor* q_norm = nullptr;
  const PackedTensor* k_norm = nullptr;
  const PackedTensor* attn_output = nullptr;
  const PackedTensor* post_attn_norm = nullptr;
  const PackedTensor* ffn_norm = nullptr;
  const PackedTensor* gate = nullptr;
  const PackedTensor* up = nullptr;
  const PackedTensor* down = nullptr;
  const PackedTensor* post_ffn_norm = nullptr;
};

struct Tensors {
  const PackedTensor* embedding = nullptr;
  const PackedTensor* output_norm = nullptr;
  const PackedTensor* output = nullptr;
  std::vector<Layer> layers;
};

// Looks up tensors and remembers the first that is absent or of the wrong shape.
class TensorFinder {
 public:
  explicit TensorFinder(const devices::WeightImage& weights) : weights_(weights) {}

  const PackedTensor* Find(const std::string& name, int64_t rows, int64_t cols) {
    const PackedTensor* tensor = weights_.Find(name);
    if (tensor == nullptr) {
      if (status_.ok()) status_ = InvalidArgument("the weight image has no tensor '{}'", name);
    } else if (tensor->rows != rows || tensor->cols != cols) {
      if (status_.ok()) {
        status_ = InvalidArgument("tensor '{}' of the weight image is [{}, {}]; [{}, {}] is expected", name,
                                  tensor->rows, tensor->cols, rows, cols);
      }
    }
    return tensor;
  }
  const absl::Status& status() const { return status_; }

 private:
  const devices::WeightImage& weights_;
  absl::Status status_;
};

Layer FindLayer(const ModelConfig& config, int index, TensorFinder& finder) {
  const std::string prefix = fmt::format("blk.{}.", index);
  const int64_t q_dim = static_cast<int64_t>(config.heads) * config.head_dim;
  const int64_t kv_dim = static_cast<int64_t>(config.kv_heads) * config.head_dim;
  Layer layer;
  layer.attn_norm = finder.Find(prefix + "attn_norm.weight", 1, config.dim);
  layer.q = finder.Find(prefix + "attn_q.weight", q_dim, config.dim);
  layer.k = finder.Find(prefix + "attn_k.weight", kv_dim, config.dim);
  layer.v = finder.Find(prefix + "attn_v.weight", kv_dim, config.dim);
  if (config.qkv_bias) {
    layer.q_bias = finder.Find(prefix + "attn_q.bias", 1, q_dim);
    layer.k_bias = finder.Find(prefix + "attn_k.bias", 1, kv_dim);
    layer.v_bias = finder.Find(prefix + "attn_v.bias", 1, kv_dim);
  }
  if (config.qk_norm) {
    layer.q_norm = finder.Find(prefix + "attn_q_norm.weight", 1, config.head_dim);
    layer.k_norm = finder.Find(prefix + "attn_k_norm.weight", 1, config.head_dim);
  }
  layer.attn_output = finder.Find(prefix + "attn_output.weight", config.dim, q_dim);
  if (config.post_norms) {
    layer.post_attn_norm = finder.Find(prefix + "post_attention_norm.weight", 1, config.dim);
    layer.post_ffn_norm = finder.Find(prefix + "post_ffw_norm.weight", 1, config.dim);
  }
  layer.ffn_norm = finder.Find(prefix + "ffn_norm.weight", 1, config.dim);
  layer.gate = finder.Find(prefix + "ffn_gate.weight", config.ffn_dim, config.dim);
  layer.up = finder.Find(prefix + "ffn_up.weight", config.ffn_dim, config.dim);
  layer.down = finder.Find(prefix + "ffn_down.weight", config.dim, config.ffn_dim);
  return layer;
}

absl::StatusOr<Tensors> FindTensors(const ModelConfig& config, const devices::WeightImage& weights) {
  TensorFinder finder(weights);
  Tensors tensors;
  tensors.embedding = finder.Find("token_embd.weight", config.vocabulary, config.dim);
  tensors.output_norm = finder.Find("output_norm.weight", 1, config.dim);
  tensors.output =
      config.tied_output ? tensors.embedding : finder.Find("output.weight", config.vocabulary, config.dim);
  for (int layer = 0; layer < config.layers; ++layer)
    tensors.layers.push_back(FindLayer(config, layer, finder));
  MNEMO_RETURN_IF_ERROR(finder.status());
  return tensors;
}

absl::Status CheckOption(std::string_view name, int value, int max) {
  return CheckRange(fmt::format("transformer option {}", name), value, 1, max);
}

}  // namespace

struct Transformer::Impl {
  ModelConfig config;
  TransformerOptions options;
  devices::Device* device = nullptr;
  Tensors tensors;

  // Device memory, one row per token.
  std::vector<std::unique_ptr<devices::DeviceBuffer>> buffers;
  float* residual = nullptr;    // [max_rows, dim]
  float* q = nullptr;           // [max_rows, heads * head_dim]
  float* k = nullptr;           // [max_rows, kv_heads * head_dim]
  float* v = nullptr;           // [max_rows, kv_heads * head_dim]
  float* attention = nullptr;   // [max_rows, heads * head_dim]
  float* gate = nullptr;        // [max_rows, ffn_dim]
  float* up = nullptr;          // [max_rows, ffn_dim]
  float* projection = nullptr;  // [max_rows, dim], with post_norms only
  // [max_rows, rotary_dims], for most layers.
  float* cos_sin = nullptr;
  // [max_rows, rotary_dims], for sliding-window layers with a rotary base of their own.
  float* cos_sin_local = nullptr;
  float* logits = nullptr;  // [max_logit_rows, vocabulary]

  std::optional<RotaryTable> rotary;
  std::optional<RotaryTable> rotary_local;

  // Host memory of one Forward, sized by Create.
  std::vector<float> cos_sin_rows;  // [max_rows, rotary_dims]
  std::vector<int64_t> slots;       // [max_rows]
  // [max_rows], for indexed layers.
  std::vector<int64_t> indexed_slots;
  std::vector<AttentionSequence> attention_sequences;
  // As `sequences`, for indexed layers.
  std::vector<AttentionSequence> indexed_sequences;
  // Operations of all layers; Forward sets the fields that change from call to call.
  std::vector<devices::Op> ops;
  struct IndexedLayer {
    // Index of the first host operation before attention.
    size_t select = 0;
    // Index of attention; the `after` host operation is the next one.
    size_t attention = 0;
  };
  std::vector<IndexedLayer> indexed;  // [options.indexed_layers]
  // Rows of the last Forward.
  int forward_rows = 0;

  absl::StatusOr<float*> AllocateFloats(int64_t rows, int64_t cols) {
    MNEMO_ASSIGN_OR_RETURN(std::unique_ptr<devices::DeviceBuffer> buffer,
                           device->Allocate(static_cast<size_t>(rows * cols) * sizeof(float)));
    float* data = static_cast<float*>(buffer->data());
    buffers.push_back(std::move(buffer));
    return data;
  }

  absl::Status AllocateBuffers();
  void BuildOps();
  void AddAttentionOps(int layer_index);
  void AddFeedForwardOps(const Layer& layer);
  void AddOutput(const float* x, int64_t x_stride, const PackedTensor* weight, const PackedTensor* post_norm);
  void FillCosSin(const RotaryTable& table, std::span<const Sequence> sequences, int rows,
                  float* destination);
  void FillSequences(std::span<const Sequence> sequences);
  void FillMemory(LayerMemory* memory, std::span<const AttentionSequence> sequences);
  bool IsIndexed(int layer) const {
    return std::binary_search(options.indexed_layers.begin(), options.indexed_layers.end(), layer);
  }
};

absl::Status Transformer::Impl::AllocateBuffers() {
  const int64_t rows = options.max_rows;
  const int64_t q_dim = static_cast<int64_t>(config.heads) * config.head_dim;
  const int64_t kv_dim = static_cast<int64_t>(config.kv_heads) * config.head_dim;
  MNEMO_ASSIGN_OR_RETURN(residual, AllocateFloats(rows, config.dim));
  MNEMO_ASSIGN_OR_RETURN(q, AllocateFloats(rows, q_dim));
  MNEMO_ASSIGN_OR_RETURN(k, AllocateFloats(rows, kv_dim));
  MNEMO_ASSIGN_OR_RETURN(v, AllocateFloats(rows, kv_dim));
  MNEMO_ASSIGN_OR_RETURN(attention, AllocateFloats(rows, q_dim));
  MNEMO_ASSIGN_OR_RETURN(gate, AllocateFloats(rows, config.ffn_dim));
  MNEMO_ASSIGN_OR_RETURN(up, AllocateFloats(rows, config.ffn_dim));
  if (config.post_norms) {
    MNEMO_ASSIGN_OR_RETURN(projection, AllocateFloats(rows, config.dim));
  }
  MNEMO_ASSIGN_OR_RETURN(cos_sin, AllocateFloats(rows, config.rotary_dims));
  if (rotary_local) {
    MNEMO_ASSIGN_OR_RETURN(cos_sin_local, AllocateFloats(rows, config.rotary_dims));
  }
  MNEMO_ASSIGN_OR_RETURN(logits, AllocateFloats(options.max_logit_rows, config.vocabulary));
  cos_sin_rows.resize(static_cast<size_t>(rows * config.rotary_dims));
  slots.resize(static_cast<size_t>(rows));
  indexed_slots.resize(static_cast<size_t>(rows));
  attention_sequences.resize(static_cast<size_t>(options.max_sequences));
  indexed_sequences.resize(static_cast<size_t>(options.max_sequences));
  const int64_t max_cols =
      std::max({static_cast<int64_t>(config.dim), static_cast<int64_t>(config.ffn_dim), q_dim});
  return device->Reserve(std::max(options.max_rows, options.max_logit_rows), static_cast<int>(max_cols),
                         config.heads);
}

// residual += x . weight^T, with `post_norm` applied to the product if there is one.
void Transformer::Impl::AddOutput(const float* x, int64_t x_stride, const PackedTensor* weight,
                                  const PackedTensor* post_norm) {
  MatMulOp op;
  op.x = x;
  op.x_stride = x_stride;
  op.part_count = 1;
  op.parts[0] = {
      .weight = weight, .out = post_norm == nullptr ? residual : projection, .out_stride = config.dim};
  op.epilogue = post_norm == nullptr ? MatMulEpilogue::kAccumulate : MatMulEpilogue::kStore;
  ops.emplace_back(op);
  if (post_norm == nullptr) return;
  ops.emplace_back(NormOp{
      .x = projection, .weight = post_norm, .eps = config.norm_eps, .accumulate = true, .out = residual});
}

void Transformer::Impl::AddAttentionOps(int layer_index) {
  const Layer& layer = tensors.layers[static_cast<size_t>(layer_index)];
  const bool windowed = config.layer_is_windowed[static_cast<size_t>(layer_index)];
  const bool is_indexed = IsIndexed(layer_index);
  const int64_t q_dim = static_cast<int64_t>(config.heads) * config.head_dim;
  const int64_t kv_dim = static_cast<int64_t>(config.kv_heads) * config.head_dim;
  MatMulOp qkv;
  qkv.x = residual;
  qkv.x_stride = config.dim;
  qkv.norm_weight = layer.attn_norm;
  qkv.norm_eps = config.norm_eps;
  qkv.part_count = 3;
  qkv.parts[0] = {.weight = layer.q, .bias = layer.q_bias, .out = q, .out_stride = q_dim};
  qkv.parts[1] = {.weight = layer.k, .bias = layer.k_bias, .out = k, .out_stride = kv_dim};
  qkv.parts[2] = {.weight = layer.v, .bias = layer.v_bias, .out = v, .out_stride = kv_dim};
  ops.emplace_back(qkv);
  ops.emplace_back(RotaryStoreOp{.q = q,
                                 .k = k,
                                 .v = v,
                                 .heads = config.heads,
                                 .kv_heads = config.kv_heads,
                                 .head_dim = config.head_dim,
                                 .q_norm = layer.q_norm,
                                 .k_norm = layer.k_norm,
                                 .norm_eps = config.norm_eps,
                                 .style = config.rotary_style,
                                 .rotary_dims = config.rotary_dims,
                                 .cos_sin = windowed && rotary_local ? cos_sin_local : cos_sin,
                                 .layer = layer_index,
                                 .slots = is_indexed ? indexed_slots.data() : slots.data()});
  if (is_indexed) {
    constexpr size_t kBefore = std::tuple_size_v<decltype(LayerMemory::Ops::select)> +
                               std::tuple_size_v<decltype(LayerMemory::Ops::fetch)>;
    indexed.push_back({.select = ops.size(), .attention = ops.size() + kBefore});
    for (size_t i = 0; i < kBefore; ++i) ops.emplace_back(devices::HostOp{});
  }
  ops.emplace_back(AttentionOp{.q = q,
                               .out = attention,
                               .layer = layer_index,
                               .heads = config.heads,
                               .kv_heads = config.kv_heads,
                               .head_dim = config.head_dim,
                               .scale = config.attention_scale,
                               .window = windowed ? config.sliding_window : 0});
  if (is_indexed) ops.emplace_back(devices::HostOp{});
  AddOutput(attention, q_dim, layer.attn_output, layer.post_attn_norm);
}

void Transformer::Impl::AddFeedForwardOps(const Layer& layer) {
  MatMulOp gated;
  gated.x = residual;
  gated.x_stride = config.dim;
  gated.norm_weight = layer.ffn_norm;
  gated.norm_eps = config.norm_eps;
  gated.part_count = 2;
  gated.parts[0] = {.weight = layer.gate, .out = gate, .out_stride = config.ffn_dim};
  gated.parts[1] = {.weight = layer.up, .out = up, .out_stride = config.ffn_dim};
  gated.epilogue = config.gelu ? MatMulEpilogue::kGeluGate : MatMulEpilogue::kSiluGate;
  ops.emplace_back(gated);
  AddOutput(gate, config.ffn_dim, layer.down, layer.post_ffn_norm);
}

void Transformer::Impl::BuildOps() {
  ops.emplace_back(EmbedOp{.table = tensors.embedding, .scale = config.embedding_scale, .out = residual});
  for (int layer = 0; layer < config.layers; ++layer) {
    AddAttentionOps(layer);
    AddFeedForwardOps(tensors.layers[static_cast<size_t>(layer)]);
  }
}

void Transformer::Impl::FillCosSin(const RotaryTable& table, std::span<const Sequence> sequences, int rows,
                                   float* destination) {
  float* out = cos_sin_rows.data();
  for (const Sequence& sequence : sequences) {
    for (int i = 0; i < sequence.row_count; ++i) {
      table.Fill(static_cast<int64_t>(sequence.position_begin) + i, out);
      out += config.rotary_dims;
    }
  }
  device->Copy(destination, cos_sin_rows.data(),
               static_cast<size_t>(rows) * static_cast<size_t>(config.rotary_dims) * sizeof(float));
}

void Transformer::Impl::FillSequences(std::span<const Sequence> sequences) {
  int row = 0;
  for (size_t s = 0; s < sequences.size(); ++s) {
    const Sequence& sequence = sequences[s];
    attention_sequences[s] = {.row_begin = row,
                              .row_count = sequence.row_count,
                              .position_begin = sequence.position_begin,
                              .pages = sequence.pages};
    indexed_sequences[s] = attention_sequences[s];
    indexed_sequences[s].sparse = sequence.sparse;
    if (sequence.indexed_pages != nullptr) indexed_sequences[s].pages = sequence.indexed_pages;
    MNEMO_CHECK(sequence.sparse == nullptr || sequence.row_count == 1);
    for (int i = 0; i < sequence.row_count; ++i, ++row) {
      const int position = sequence.position_begin + i;
      const int page_index = position / devices::kPageTokens;
      const int64_t page = sequence.pages[page_index];
      const int64_t indexed_page = indexed_sequences[s].pages[page_index];
      MNEMO_CHECK(page >= 0 && indexed_page >= 0);
      const int slot = position % devices::kPageTokens;
      slots[static_cast<size_t>(row)] = page * devices::kPageTokens + slot;
      indexed_slots[static_cast<size_t>(row)] = indexed_page * devices::kPageTokens + slot;
    }
  }
}

void Transformer::Impl::FillMemory(LayerMemory* memory, std::span<const AttentionSequence> sequences) {
  for (size_t slot = 0; slot < indexed.size(); ++slot) {
    const LayerMemory::Ops made =
        memory == nullptr ? LayerMemory::Ops() : memory->OpsOf(static_cast<int>(slot), q);
    size_t at = indexed[slot].select;
    for (const devices::HostOp& op : made.select) ops[at++] = op;
    for (const devices::HostOp& op : made.fetch) ops[at++] = op;
    std::get<AttentionOp>(ops[indexed[slot].attention]).sequences = sequences;
    ops[indexed[slot].attention + 1] = made.after;
  }
}

Transformer::Transformer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Transformer::~Transformer() = default;

absl::StatusOr<std::unique_ptr<Transformer>> Transformer::Create(const ModelConfig& config,
                                                                 const devices::WeightImage& weights,
                                                                 devices::Device* device,
                                                                 const TransformerOptions& options) {
  constexpr int kMaxRows = 1 << 16;
  MNEMO_RETURN_IF_ERROR(CheckOption("max_rows", options.max_rows, kMaxRows));
  MNEMO_RETURN_IF_ERROR(CheckOption("max_logit_rows", options.max_logit_rows, kMaxRows));
  MNEMO_RETURN_IF_ERROR(CheckOption("max_sequences", options.max_sequences, kMaxRows));
  for (const int layer : options.indexed_layers) {
    if (layer < 0 || layer >= config.layers || config.layer_is_windowed[static_cast<size_t>(layer)]) {
      return InvalidArgument(
          "transformer option indexed_layers holds {}; full-attention layers of {} are allowed", layer,
          config.layers);
    }
  }
  auto impl = std::make_unique<Impl>();
  impl->config = config;
  impl->options = options;
  impl->device = device;
  MNEMO_ASSIGN_OR_RETURN(impl->tensors, FindTensors(config, weights));
  impl->rotary.emplace(config.rotary_dims, config.rope_theta, config.rope_linear_scale, config.rope_factors,
                       config.context_tokens);
  if (config.rope_theta_local > 0) {
    impl->rotary_local.emplace(config.rotary_dims, config.rope_theta_local, 1.0, std::span<const float>(),
                               config.context_tokens);
  }
  MNEMO_RETURN_IF_ERROR(impl->AllocateBuffers());
  impl->BuildOps();
  return std::unique_ptr<Transformer>(new Transformer(std::move(impl)));
}

const ModelConfig& Transformer::config() const { return impl_->config; }
const TransformerOptions& Transformer::options() const { return impl_->options; }

devices::KvCacheShape Transformer::KvShape(int pages) const {
  std::vector<uint8_t> gather_layers;
  if (!impl_->options.indexed_layers.empty()) gather_layers.resize(static_cast<size_t>(impl_->config.layers));
  for (const int layer : impl_->options.indexed_layers) gather_layers[static_cast<size_t>(layer)] = 1;
  return {.layers = impl_->config.layers,
          .kv_heads = impl_->config.kv_heads,
          .head_dim = impl_->config.head_dim,
          .pages = pages,
          .type = impl_->device->info().kv_type,
          .gather_layers = std::move(gather_layers)};
}

void Transformer::Forward(devices::KvCache* cache, std::span<const int32_t> ids,
                          std::span<const Sequence> sequences, LayerMemory* memory) {
  Impl& impl = *impl_;
  const int rows = static_cast<int>(ids.size());
  MNEMO_CHECK(rows >= 1 && rows <= impl.options.max_rows);
  MNEMO_CHECK(static_cast<int>(sequences.size()) <= impl.options.max_sequences);
  int sequence_rows = 0;
  for (const Sequence& sequence : sequences) {
    MNEMO_CHECK(sequence.row_count >= 1 && sequence.position_begin >= 0);
    sequence_rows += sequence.row_count;
  }
  MNEMO_CHECK(sequence_rows == rows);
  impl.FillSequences(sequences);
  impl.FillCosSin(*impl.rotary, sequences, rows, impl.cos_sin);
  if (impl.rotary_local) impl.FillCosSin(*impl.rotary_local, sequences, rows, impl.cos_sin_local);
  const std::span<const AttentionSequence> attention_sequences(impl.attention_sequences.data(),
                                                               sequences.size());
  for (devices::Op& op : impl.ops) {
    std::visit(
        [&]<typename T>(T& typed) {
          if constexpr (std::is_same_v<T, AttentionOp>) {
            typed.sequences = attention_sequences;
          } else if constexpr (!std::is_same_v<T, devices::HostOp>) {
            typed.rows = rows;
          }
          if constexpr (std::is_same_v<T, AttentionOp> || std::is_same_v<T, RotaryStoreOp>)
            typed.cache = cache;
          if constexpr (std::is_same_v<T, EmbedOp>) typed.ids = ids.data();
        },
        op);
  }
  impl.FillMemory(memory,
                  std::span<const AttentionSequence>(impl.indexed_sequences.data(), sequences.size()));
  impl.device->Run(impl.ops);
  impl.forward_rows = rows;
}

const float* Transformer::Logits(std::span<const int32_t> rows) {
  Impl& impl = *impl_;
  MNEMO_CHECK(!rows.empty() && static_cast<int>(rows.size()) <= impl.options.max_logit_rows);
  for (const int32_t row : rows) MNEMO_CHECK(row >= 0 && row < impl.forward_rows);
  MatMulOp output;
  output.x = impl.residual;
  output.x_stride = impl.config.dim;
  output.row_index = rows.data();
  output.rows = static_cast<int>(rows.size());
  output.norm_weight = impl.tensors.output_norm;
  output.norm_eps = impl.config.norm_eps;
  output.part_count = 1;
  output.parts[0] = {.weight = impl.tensors.output, .out = impl.logits, .out_stride = impl.config.vocabulary};
  const devices::Op op = output;
  impl.device->Run({&op, 1});
  return impl.logits;
}

}  // namespace mnemo::model
