#include "server/model/rotary_table.h"

#include <algorithm>
#include <cmath>

#include "devices/base/status.h"

namespace mnemo::model {

RotaryTable::RotaryTable(int dims, double theta, double scale, std::span<const float> factors,
                         int context_tokens) {
  MNEMO_CHECK(dims >= 2 && dims % 2 == 0 && scale > 0);
  const size_t pairs = static_cast<size_t>(dims / 2);
  MNEMO_CHECK(factors.empty() || factors.size() == pairs);
  for (size_t i = 0; i < pairs; ++i) {
    const double frequency = std::pow(theta, -2.0 * static_cast<double>(i) / dims) / scale;
    frequencies_.push_back(factors.empty() ? frequency : frequency / static_cast<double>(factors[i]));
  }
  const int64_t coarse_rows =
      std::min((static_cast<int64_t>(context_tokens) + kFinePositions - 1) / kFinePositions, kMaxCoarseRows);
  for (int64_t row = 0; row < kFinePositions; ++row) {
    for (const double frequency : frequencies_) {
      fine_.push_back(std::polar(1.0, static_cast<double>(row) * frequency));
    }
  }
  for (int64_t row = 0; row < coarse_rows; ++row) {
    for (const double frequency : frequencies_) {
      coarse_.push_back(std::polar(1.0, static_cast<double>(row * kFinePositions) * frequency));
    }
  }
}

void RotaryTable::Fill(int64_t position, float* out) const {
  const size_t pairs = frequencies_.size();
  const size_t coarse_begin = static_cast<size_t>(position / kFinePositions) * pairs;
  if (coarse_begin >= coarse_.size()) {
    for (size_t i = 0; i < pairs; ++i) {
      const double angle = static_cast<double>(position) * frequencies_[i];
      out[2 * i] = static_cast<float>(std::cos(angle));
      out[2 * i + 1] = static_cast<float>(std::sin(angle));
    }
    return;
  }
  const std::complex<double>* coarse = coarse_.data() + coarse_begin;
  const std::complex<double>* fine = fine_.data() + static_cast<size_t>(position % kFinePositions) * pairs;
  for (size_t i = 0; i < pairs; ++i) {
    // Written out, because the product of std::complex checks for infinities, which takes longer than the
    // product.
    out[2 * i] = static_cast<float>(coarse[i].real() * fine[i].real() - coarse[i].imag() * fine[i].imag());
    out[2 * i + 1] =
        static_cast<float>(coarse[i].real() * fine[i].imag() + coarse[i].imag() * fine[i].real());
  }
}

}  // namespace mnemo::model
