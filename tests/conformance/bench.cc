#include "tests/conformance/bench.h"

#include <cmath>
#include <cstring>

namespace mnemo::conformance {

using devices::KvType;
using devices::TensorType;

int UniformInt(Random* random, int low, int high) {
  return low + static_cast<int>((*random)() % static_cast<uint32_t>(high - low + 1));
}

std::vector<float> Normal(Random* random, size_t count, float scale) {
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(count);
  for (float& v : values) v = normal(*random);
  return values;
}

std::vector<Variant> Variants() {
  std::vector<Variant> variants;
  std::vector<devices::DeviceKind> kinds = devices::DeviceKinds();
  for (devices::DeviceKind& kind : kinds) {
#ifdef __SANITIZE_THREAD__
    // Races do not depend on the instruction set, and these tests are fifty times as slow under the thread
    // sanitizer.
    if (!kind.isas.empty()) kind.isas.erase(kind.isas.begin(), kind.isas.end() - 1);
#endif
    if (kind.isas.empty()) variants.push_back({kind.name, "auto"});
    for (const std::string& isa : kind.isas) variants.push_back({kind.name, isa});
  }
  return variants;
}

std::unique_ptr<Bench> MakeBench(const Variant& variant, int threads, KvType kv_type) {
  if (variant.kind == "reference" && kv_type != KvType::kF32) return nullptr;
  devices::DeviceOptions options;
  options.kind = variant.kind;
  options.isa = variant.isa;
  options.threads = threads;
  options.kv_type = kv_type;
  auto device = devices::CreateDevice(options);
  if (!device.ok()) {
    INFO(device.status());
    REQUIRE((kv_type == KvType::kF32 && device.status().code() == absl::StatusCode::kInvalidArgument));
    return nullptr;
  }
  auto bench = std::make_unique<Bench>();
  bench->device = std::move(device).value();
  REQUIRE(bench->device->info().kv_type == kv_type);
  bench->bounds.int8_activations = variant.kind != "reference";
  bench->bounds.fixed_point_keys = variant.kind != "reference";
  bench->name =
      fmt::format("{} {} threads={} kv={}", variant.kind, variant.isa, threads, devices::KvTypeName(kv_type));
  return bench;
}

void EachBench(const std::function<void(Bench&)>& test) {
  for (const Variant& variant : Variants()) {
    for (int threads : {1, 2}) {
      std::unique_ptr<Bench> bench = MakeBench(variant, threads, KvType::kF16);
      if (bench == nullptr) bench = MakeBench(variant, threads, KvType::kF32);
      REQUIRE(bench != nullptr);
      INFO(bench->name);
      test(*bench);
    }
  }
}

void EachKvBench(const std::function<void(Bench&)>& test) {
  for (const Variant& variant : Variants()) {
    int tested = 0;
    for (KvType kv_type : {KvType::kF32, KvType::kF16, KvType::kBF16, KvType::kQ8}) {
      for (int threads : {1, 2}) {
        std::unique_ptr<Bench> bench = MakeBench(variant, threads, kv_type);
        if (bench == nullptr) continue;
        INFO(bench->name);
        test(*bench);
        ++tested;
      }
    }
    REQUIRE(tested > 0);
  }
}

namespace {

void PutHalf(std::byte* at, float value) {
  const uint16_t half = devices::FloatToHalf(value);
  std::memcpy(at, &half, sizeof(half));
}

float Between(Random* random, float low, float high) {
  return low + (high - low) * static_cast<float>((*random)() >> 8) * 0x1p-24f;
}

// Random bits with the block's scales replaced by small numbers, so that values are about as large as real
// weights; a scale is zero or negative now and then.
void FillBlock(Random* random, TensorType type, std::byte* block, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) block[i] = static_cast<std::byte>((*random)());
  float scale = Between(random, 0.002f, 0.02f);
  if ((*random)() % 16 == 0) scale = 0;
  if ((*random)() % 4 == 0) scale = -scale;
  switch (type) {
    case TensorType::kQ4_1:
    case TensorType::kQ5_1:
      PutHalf(block, scale);
      PutHalf(block + 2, Between(random, -0.1f, 0.1f));
      break;
    case TensorType::kQ4_K:
    case TensorType::kQ5_K:
      PutHalf(block, scale / 32);
      PutHalf(block + 2, Between(random, 0.0f, 0.01f));
      break;
    case TensorType::kQ6_K:
      PutHalf(block + 208, scale / 64);
      break;
    case TensorType::kQ8_0:
      PutHalf(block, scale / 8);
      break;
    default:
      PutHalf(block, scale);
      break;  // Q4_0, Q5_0
  }
}

}  // namespace

Tensor RandomTensor(Random* random, const std::string& name, devices::TensorRole role, TensorType type,
                    int64_t rows, int64_t cols) {
  const devices::TensorTypeTraits& traits = devices::Traits(type);
  const auto count = static_cast<size_t>(rows * cols);
  const auto block_bytes = static_cast<size_t>(traits.block_bytes);
  Tensor tensor;
  tensor.stored.resize(count / static_cast<size_t>(traits.block_elements) * block_bytes);
  if (traits.block_elements == 1) {
    const float offset = role == devices::TensorRole::kVector ? 1.0f : 0.0f;
    const std::vector<float> values = Normal(random, count, 0.1f);
    for (size_t i = 0; i < count; ++i) {
      const float value = offset + values[i];
      std::byte* at = tensor.stored.data() + i * block_bytes;
      const uint16_t bfloat = devices::FloatToBfloat16(value);
      if (type == TensorType::kF32) std::memcpy(at, &value, sizeof(value));
      if (type == TensorType::kF16) PutHalf(at, value);
      if (type == TensorType::kBF16) std::memcpy(at, &bfloat, sizeof(bfloat));
    }
  } else {
    for (size_t at = 0; at < tensor.stored.size(); at += block_bytes) {
      FillBlock(random, type, tensor.stored.data() + at, block_bytes);
    }
  }
  tensor.values.resize(count);
  devices::Dequantize(type, tensor.stored, tensor.values);
  tensor.source = {name, role, type, rows, cols, tensor.stored};
  return tensor;
}

Weights::Weights(const devices::Device& device, const std::vector<const Tensor*>& tensors) {
  std::vector<devices::TensorSource> sources;
  for (const Tensor* tensor : tensors) {
    sources.push_back(tensor->source);
    sources.back().data = tensor->stored;
  }
  const auto fd = devices::BuildWeightImage(device.packer(), sources, "conformance");
  INFO(fd.status());
  REQUIRE(fd.ok());
  auto image = devices::WeightImage::Map(fd->get(), device.packer().layout());
  INFO(image.status());
  REQUIRE(image.ok());
  image_ = std::move(image).value();
}

const devices::PackedTensor* Weights::operator[](const std::string& name) const {
  const devices::PackedTensor* tensor = image_->Find(name);
  REQUIRE(tensor != nullptr);
  return tensor;
}

Array::Array(devices::Device* device, size_t count) : device_(device), count_(count) {
  auto buffer = device->Allocate(count * sizeof(float));
  REQUIRE(buffer.ok());
  buffer_ = std::move(buffer).value();
}

Array::Array(devices::Device* device, const std::vector<float>& values) : Array(device, values.size()) {
  Set(values);
}

std::vector<float> Array::Get() const {
  std::vector<float> values(count_);
  if (count_ > 0) device_->Copy(values.data(), buffer_->data(), count_ * sizeof(float));
  return values;
}

void Array::Set(const std::vector<float>& values) {
  REQUIRE(values.size() == count_);
  if (count_ > 0) device_->Copy(buffer_->data(), values.data(), count_ * sizeof(float));
}

bool SameBits(const float* a, const float* b, size_t count) {
  return count == 0 || std::memcmp(a, b, count * sizeof(float)) == 0;
}

std::vector<double> NormOracle(const float* x, const float* weight, int64_t n, double eps) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  const double scale = 1.0 / std::sqrt(sum / static_cast<double>(n) + eps);
  std::vector<double> y(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    y[static_cast<size_t>(i)] = static_cast<double>(x[i]) * scale * static_cast<double>(weight[i]);
  }
  return y;
}

}  // namespace mnemo::conformance
