// Cosines and sines of rotary embedding in the devices' layout: one row per position.
#pragma once

#include <complex>
#include <cstdint>
#include <span>
#include <vector>

namespace mnemo::model {

// Angle of pair i at position p: p * theta^(-2i/dims) / scale / factors[i]. Computed in double and rounded
// once to float32; depends on the position only. The rotation at position p is the product of two rotations:
// that of its multiple of kFinePositions and that of the remainder. Two small tables thus replace a sine and
// a cosine for every pair.
class RotaryTable {
 public:
  // dims even, >= 2; scale > 0; factors: [dims / 2], each > 0, or empty. Positions up to context_tokens come
  // from the tables; later ones are computed without them.
  RotaryTable(int dims, double theta, double scale, std::span<const float> factors, int context_tokens);

  // out: [dims / 2, 2], cosine and sine. position >= 0. Does not allocate.
  void Fill(int64_t position, float* out) const;

 private:
  static constexpr int64_t kFinePositions = 256;
  static constexpr int64_t kMaxCoarseRows = 4096;
  // [dims / 2], radians per position.
  std::vector<double> frequencies_;
  std::vector<std::complex<double>> fine_;    // [kFinePositions, dims / 2]
  std::vector<std::complex<double>> coarse_;  // [rows, dims / 2], at multiples of kFinePositions
};

}  // namespace mnemo::model
