// Matrix products against sums in double precision.
#include <algorithm>
#include <cmath>

#include "tests/conformance/bench.h"

namespace mnemo::conformance {
namespace {

using namespace devices;  // NOLINT: the suite is about this namespace

struct Shape {
  TensorType type = TensorType::kF32;
  int rows = 1;
  int k = 32;
  std::vector<int> n;  // one a part
  MatMulEpilogue epilogue = MatMulEpilogue::kStore;
  bool bias = false;
  bool norm = false;
  bool row_index = false;
  // Activations are integers up to 127 times a power of two, with a 127 in every block. Rounding to 8 bits
  // keeps them, so the result must be as exact as with float32 activations.
  bool exact = true;
};

std::vector<float> Activations(Random* random, int rows, int k, bool exact) {
  std::vector<float> x(static_cast<size_t>(rows) * static_cast<size_t>(k));
  for (int r = 0; r < rows; ++r) {
    float* row = x.data() + static_cast<size_t>(r) * static_cast<size_t>(k);
    if (exact) {
      for (int i = 0; i < k; ++i) {
        if (i % 32 == 0 && (i == 0 || UniformInt(random, 0, 3) == 0)) row[i] = 127;
        row[i] = static_cast<float>(UniformInt(random, -127, 127));
      }
      for (int begin = 0; begin < k; begin += 32) {
        const float scale = std::ldexp(1.0f, UniformInt(random, -9, -4));
        const int length = std::min(32, k - begin);
        row[begin + UniformInt(random, 0, length - 1)] = UniformInt(random, 0, 1) == 0 ? 127 : -127;
        for (int i = begin; i < begin + length; ++i) row[i] *= scale;
      }
    } else {
      const float scale = std::pow(10.0f, static_cast<float>(UniformInt(random, -2, 2)));
      const std::vector<float> values = Normal(random, static_cast<size_t>(k), scale);
      std::copy(values.begin(), values.end(), row);
      if (r % 5 == 3) row[UniformInt(random, 0, k - 1)] = 40 * scale;  // an outlier
      if (r % 7 == 4) std::fill(row, row + k, 0.0f);
    }
  }
  return x;
}

struct Result {
  double value = 0;
  double error = 0;  // largest allowed error of the device
};

// One output: the sum, and the device's allowed error. Rounding an activation to 8 bits has an error of at
// most half a step of its block, in either direction. Five times the root of the sum of their squares is
// allowed.
Result SumOracle(const Bounds& bounds, const std::vector<double>& x, const float* w) {
  Result result;
  double magnitude = 0, largest_weight = 0, squares = 0;
  for (size_t begin = 0; begin < x.size(); begin += 32) {
    const size_t end = std::min(x.size(), begin + 32);
    double largest = 0, weight_squares = 0;
    for (size_t i = begin; i < end; ++i) {
      const auto weight = static_cast<double>(w[i]);
      result.value += x[i] * weight;
      magnitude += std::fabs(x[i]);
      largest_weight = std::max(largest_weight, std::fabs(weight));
      largest = std::max(largest, std::fabs(x[i]));
      weight_squares += weight * weight;
    }
    const double half_step = largest / 127 / 2;
    squares += half_step * half_step * weight_squares;
  }
  result.error = bounds.sum * magnitude * (largest_weight + 0.01);
  if (bounds.int8_activations) result.error += 5 * std::sqrt(squares);
  return result;
}

Result Gate(MatMulEpilogue epilogue, const Result& gate, const Result& up) {
  const double g = gate.value;
  double activated = g / (1 + std::exp(-g));
  if (epilogue == MatMulEpilogue::kGeluGate) {
    activated = g / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g)));
  }
  // Neither function is steeper than 1.13.
  const double activated_error = 1.13 * gate.error + 1e-6 * std::fabs(g) + 1e-7;
  return {activated * up.value, activated_error * (std::fabs(up.value) + up.error) +
                                    (std::fabs(activated) + activated_error) * up.error};
}

void CheckMatMul(Bench& bench, const Shape& shape, Random* random) {
  const auto k = static_cast<size_t>(shape.k);
  const int x_rows = shape.row_index ? shape.rows + 5 : shape.rows;
  const int64_t x_stride = shape.k + (shape.row_index ? 32 : 0);
  Bounds bounds = bench.bounds;
  if (shape.exact && !shape.norm) bounds.int8_activations = false;

  // Weights.
  std::vector<Tensor> tensors;
  for (size_t p = 0; p < shape.n.size(); ++p) {
    tensors.push_back(
        RandomTensor(random, fmt::format("w{}", p), TensorRole::kMatrix, shape.type, shape.n[p], shape.k));
    tensors.push_back(
        RandomTensor(random, fmt::format("b{}", p), TensorRole::kVector, TensorType::kF32, 1, shape.n[p]));
  }
  tensors.push_back(RandomTensor(random, "norm", TensorRole::kVector, TensorType::kF32, 1, shape.k));
  std::vector<const Tensor*> pointers;
  for (const Tensor& tensor : tensors) pointers.push_back(&tensor);
  const Weights weights(*bench.device, pointers);

  // Activations, spread over a wider array when strides and row indexes are asked for.
  const std::vector<float> dense = Activations(random, x_rows, shape.k, shape.exact);
  std::vector<float> strided(static_cast<size_t>(x_rows) * static_cast<size_t>(x_stride), 1e9f);
  for (int r = 0; r < x_rows; ++r) {
    std::copy_n(dense.begin() + r * shape.k, shape.k, strided.begin() + r * x_stride);
  }
  std::vector<int32_t> index;
  for (int r = 0; r < shape.rows; ++r)
    index.push_back(shape.row_index ? UniformInt(random, 0, x_rows - 1) : r);
  const Array x(bench.device.get(), strided);

  MatMulOp op;
  op.x = x.data();
  op.x_stride = x_stride;
  op.row_index = shape.row_index ? index.data() : nullptr;
  op.rows = shape.rows;
  op.norm_weight = shape.norm ? weights["norm"] : nullptr;
  op.norm_eps = 1e-5f;
  op.part_count = static_cast<int>(shape.n.size());
  op.epilogue = shape.epilogue;
  std::vector<Array> outs;
  std::vector<std::vector<float>> before;
  for (size_t p = 0; p < shape.n.size(); ++p) {
    const int64_t stride = shape.n[p] + (shape.row_index ? 3 : 0);
    before.push_back(Normal(random, static_cast<size_t>(shape.rows) * static_cast<size_t>(stride)));
    outs.emplace_back(bench.device.get(), before.back());
    op.parts[p] = {weights[fmt::format("w{}", p)], shape.bias ? weights[fmt::format("b{}", p)] : nullptr,
                   outs[p].data(), stride};
  }
  const int widest = *std::max_element(shape.n.begin(), shape.n.end());
  REQUIRE(bench.device->Reserve(shape.rows, std::max(shape.k, widest), 1).ok());
  const Op list = op;
  bench.device->Run({&list, 1});

  const bool gate =
      shape.epilogue == MatMulEpilogue::kSiluGate || shape.epilogue == MatMulEpilogue::kGeluGate;
  auto part_oracle = [&](size_t p, const std::vector<double>& row, int c) {
    Result result = SumOracle(bounds, row, tensors[2 * p].values.data() + static_cast<size_t>(c) * k);
    if (shape.bias) result.value += static_cast<double>(tensors[2 * p + 1].values[static_cast<size_t>(c)]);
    result.error += 1e-6 * std::fabs(result.value);
    return result;
  };
  for (size_t p = 0; p < (gate ? 1 : shape.n.size()); ++p) {
    const std::vector<float> got = outs[p].Get();
    for (int r = 0; r < shape.rows; ++r) {
      const float* row = dense.data() + static_cast<size_t>(index[static_cast<size_t>(r)]) * k;
      const std::vector<double> input = shape.norm
                                            ? NormOracle(row, tensors.back().values.data(), shape.k, 1e-5f)
                                            : std::vector<double>(row, row + k);
      for (int c = 0; c < op.parts[p].out_stride; ++c) {
        const auto i = static_cast<size_t>(r * op.parts[p].out_stride + c);
        if (c >= shape.n[p]) {  // past the row: nothing may be written there
          REQUIRE(got[i] == before[p][i]);
          continue;
        }
        Result wanted = part_oracle(p, input, c);
        if (gate) wanted = Gate(shape.epilogue, wanted, part_oracle(1, input, c));
        if (shape.epilogue == MatMulEpilogue::kAccumulate) wanted.value += static_cast<double>(before[p][i]);
        const double difference = std::fabs(static_cast<double>(got[i]) - wanted.value);
        INFO("part " << p << " row " << r << " column " << c << ": " << got[i] << ", wanted "
                     << wanted.value);
        // Not REQUIRE for each: a million assertions are slow.
        if (!(difference <= wanted.error + 1e-6 * std::fabs(wanted.value) + 1e-7)) {
          REQUIRE(difference <= wanted.error);
        }
      }
    }
  }
}

int RandomK(Random* random, TensorType type) {
  return Traits(type).block_elements == 256 ? 256 * UniformInt(random, 1, 3) : 32 * UniformInt(random, 1, 20);
}

TEST_CASE("matrix products of every weight type over random shapes") {
  EachBench([](Bench& bench) {
    Random random(101);
    for (TensorType type : kAllTypes) {
      for (int trial = 0; trial < 10; ++trial) {
        Shape shape;
        shape.type = type;
        shape.rows = trial < 3 ? trial + 1 : UniformInt(&random, 1, 40);
        shape.k = RandomK(&random, type);
        shape.n = {UniformInt(&random, 1, 100)};
        shape.exact = trial % 3 != 2;
        INFO(Traits(type).name << " rows " << shape.rows << " k " << shape.k << " n " << shape.n[0]
                               << " exact " << shape.exact);
        CheckMatMul(bench, shape, &random);
      }
    }
  });
}

TEST_CASE("matrix products with every epilogue, bias, norm, row index and number of parts") {
  EachBench([](Bench& bench) {
    Random random(202);
    for (int trial = 0; trial < 60; ++trial) {
      Shape shape;
      shape.type = kAllTypes[static_cast<size_t>(trial) % std::size(kAllTypes)];
      shape.rows = UniformInt(&random, 1, 40);
      shape.k = RandomK(&random, shape.type);
      shape.epilogue = static_cast<MatMulEpilogue>(trial % 4);
      const bool gate = trial % 4 >= 2;
      const int parts = gate ? 2 : UniformInt(&random, 1, 3);
      const int n = UniformInt(&random, 1, 70);
      for (int p = 0; p < parts; ++p) shape.n.push_back(gate ? n : UniformInt(&random, 1, 70));
      shape.bias = UniformInt(&random, 0, 1) == 1;
      shape.norm = UniformInt(&random, 0, 2) == 0;
      shape.row_index = UniformInt(&random, 0, 1) == 1;
      shape.exact = UniformInt(&random, 0, 1) == 1;
      INFO("trial " << trial << " " << Traits(shape.type).name << " rows " << shape.rows << " k " << shape.k
                    << " n " << shape.n[0] << " parts " << parts << " epilogue " << trial % 4 << " bias "
                    << shape.bias << " norm " << shape.norm << " row index " << shape.row_index << " exact "
                    << shape.exact);
      CheckMatMul(bench, shape, &random);
    }
  });
}

TEST_CASE("every number of rows from 1 to 40") {
  EachBench([](Bench& bench) {
    Random random(303);
    for (int rows = 1; rows <= 40; ++rows) {
      Shape shape;
      shape.type = rows % 2 == 0 ? TensorType::kQ4_1 : TensorType::kQ8_0;
      shape.rows = rows;
      shape.k = 96;
      shape.n = {33};
      INFO("rows " << rows);
      CheckMatMul(bench, shape, &random);
    }
  });
}

TEST_CASE("columns that are not whole blocks of 32 are right or refused") {
  for (const Variant& variant : Variants()) {
    std::unique_ptr<Bench> bench = MakeBench(variant, 2, KvType::kF16);
    if (bench == nullptr) bench = MakeBench(variant, 2, KvType::kF32);
    INFO(bench->name);
    Random random(404);
    for (TensorType type : {TensorType::kF32, TensorType::kF16, TensorType::kBF16}) {
      for (int k : {1, 16, 33, 80}) {
        const Tensor tensor = RandomTensor(&random, "w", TensorRole::kMatrix, type, 20, k);
        TensorSource source = tensor.source;
        source.data = tensor.stored;
        uint32_t format = 0;
        const auto bytes = bench->device->packer().PackedBytes(source, &format);
        if (!bytes.ok()) {
          CHECK(bytes.status().code() == absl::StatusCode::kInvalidArgument);
          CHECK_THAT(std::string(bytes.status().message()), Catch::Contains("w"));
          continue;
        }
        Shape shape;
        shape.type = type;
        shape.rows = 3;
        shape.k = k;
        shape.n = {20};
        CheckMatMul(*bench, shape, &random);
      }
    }
  }
}

}  // namespace
}  // namespace mnemo::conformance
