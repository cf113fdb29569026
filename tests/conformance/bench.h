// Helpers of the conformance tests: every device of this build on this machine, random tensors, and device
// memory. A test draws random shapes and compares with its own plain oracle in double precision.
#pragma once

#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "devices/device_registry.h"

namespace mnemo::conformance {

using Random = std::mt19937;

int UniformInt(Random* random, int low, int high);  // both inclusive
std::vector<float> Normal(Random* random, size_t count, float scale = 1.0f);

// Largest error of a kind against exact arithmetic on its input values.
struct Bounds {
  // Activations of a matrix product are rounded to 8 bits, scale = largest magnitude / 127, per row and block
  // of 32.
  bool int8_activations = false;
  // Keys are stored, and queries taken, as 16-bit fixed point scaled by their largest element, so that their
  // dot product fits 32 bits: a step is largest / sqrt(2^31 / head_dim).
  bool fixed_point_keys = false;
  // One result of attention, relative to the largest value: float32 arithmetic throughout, exp included.
  double attention = 2e-5;
  // A sum of products, relative to the sum of |activation| times the largest |weight|.
  double sum = 4e-6;
};

struct Bench {
  std::string name;  // for messages: kind, instruction set, threads, KV type
  std::unique_ptr<devices::Device> device;
  Bounds bounds;
};

// A step of KvType::kQ8, relative to the largest element: a scale may be a 128th larger than it must be.
inline constexpr double kQ8Step = 1.0 / 127 * (1 + 1.0 / 128);

// The largest magnitude.
template <class Values>
double LargestOf(const Values& values) {
  double largest = 0;
  for (const auto value : values) largest = std::max(largest, std::fabs(static_cast<double>(value)));
  return largest;
}

// The rotated key that kQ8 rounds: blocks of the largest power of two that divides its length, by the
// definition of the Walsh-Hadamard matrix.
template <class Values>
std::vector<double> Rotated(const Values& key) {
  const size_t block = key.size() & (~key.size() + 1);
  std::vector<double> rotated(key.size());
  for (size_t i = 0; i < key.size(); ++i) {
    for (size_t j = i / block * block; j < i / block * block + block; ++j) {
      const bool minus = std::popcount(i % block & j % block) % 2 != 0;
      rotated[i] += (minus ? -1 : 1) * static_cast<double>(key[j]) / std::sqrt(static_cast<double>(block));
    }
  }
  return rotated;
}

struct Variant {
  std::string kind;
  std::string isa;
};
std::vector<Variant> Variants();
// nullptr when the device does not have this KV type (all have one of those that the tests ask for).
std::unique_ptr<Bench> MakeBench(const Variant& variant, int threads, devices::KvType kv_type);
// Calls the test for every variant, 1 and 2 threads, with the KV type that comes first in the list of F16,
// F32 that the device has.
void EachBench(const std::function<void(Bench&)>& test);
// The same for every KV type that the device has.
void EachKvBench(const std::function<void(Bench&)>& test);

// A random tensor as a file stores it, and the values that it encodes.
struct Tensor {
  std::vector<std::byte> stored;
  std::vector<float> values;  // [rows, cols]
  devices::TensorSource source;
};
Tensor RandomTensor(Random* random, const std::string& name, devices::TensorRole role,
                    devices::TensorType type, int64_t rows, int64_t cols);
inline constexpr devices::TensorType kAllTypes[] = {
    devices::TensorType::kF32,  devices::TensorType::kF16,  devices::TensorType::kBF16,
    devices::TensorType::kQ8_0, devices::TensorType::kQ4_0, devices::TensorType::kQ4_1,
    devices::TensorType::kQ5_0, devices::TensorType::kQ5_1, devices::TensorType::kQ4_K,
    devices::TensorType::kQ5_K, devices::TensorType::kQ6_K};

// Tensors packed for one device, as it would get them from the front end.
class Weights {
 public:
  Weights(const devices::Device& device, const std::vector<const Tensor*>& tensors);
  const devices::PackedTensor* operator[](const std::string& name) const;

 private:
  std::unique_ptr<devices::WeightImage> image_;
};

// An array of floats in the device's memory.
class Array {
 public:
  Array(devices::Device* device, size_t count);
  Array(devices::Device* device, const std::vector<float>& values);
  float* data() const { return static_cast<float*>(buffer_->data()); }
  std::vector<float> Get() const;
  void Set(const std::vector<float>& values);

 private:
  devices::Device* device_;
  size_t count_;
  std::unique_ptr<devices::DeviceBuffer> buffer_;
};

bool SameBits(const float* a, const float* b, size_t count);

// Root-mean-square norm in double.
std::vector<double> NormOracle(const float* x, const float* weight, int64_t n, double eps);

}  // namespace mnemo::conformance
