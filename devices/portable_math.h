// exp, log and tanh in plain additions, multiplications and divisions, so that results are the same on any
// machine. The C library selects a version by instruction set, and their last bits differ. Branch-free, so
// that the compiler vectorises loops over them.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>

namespace mnemo::devices {

// Relative error below 2e-7; 0 below -87.3, infinity above 88.7.
inline float PortableExp(float x) {
  const float clamped = x < -87.4f ? -87.4f : (x > 88.8f ? 88.8f : x);
  // n = x / ln 2 rounded to the nearest integer: adding 1.5 * 2^23 leaves it in the low bits of the fraction.
  const float shifted = clamped * 1.44269504f + 12582912.0f;
  const int32_t n = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(12582912.0f);
  const float rounded = shifted - 12582912.0f;
  // ln 2 in two parts. The first has few enough bits that its product with n is exact.
  const float r = (clamped - rounded * 0.693359375f) - rounded * -2.12194440e-4f;
  // r| <= ln(2) / 2: the Taylor series to r^7 has an error of at most 6e-9.
  float p = 1.0f / 5040.0f;
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  // 2^n in two factors, since n = 128 has no exponent of its own.
  const int32_t half = n >> 1;
  const float scale_low = std::bit_cast<float>((half + 127) << 23);
  const float scale_high = std::bit_cast<float>((n - half + 127) << 23);
  const float y = p * scale_low * scale_high;
  return x < -87.3f ? 0.0f : (x > 88.72f ? std::numeric_limits<float>::infinity() : (x == x ? y : x));
}

// Natural logarithm of a positive normal number; relative error about 1e-15.
inline double PortableLog(double x) {
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  int64_t exponent = static_cast<int64_t>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0xfffffffffffffull) | 0x3ff0000000000000ull);  // in [1, 2)
  if (m > 1.4142135623730951) {
    m *= 0.5;
    ++exponent;
  }
  // ln m = 2 atanh(s), s = (m - 1) / (m + 1), |s| <= 0.172: the series to s^19 has an error below 1e-16.
  const double s = (m - 1.0) / (m + 1.0);
  const double s2 = s * s;
  double sum = 0.0;
  for (int k = 19; k >= 1; k -= 2) sum = sum * s2 + 1.0 / k;
  return static_cast<double>(exponent) * 0.6931471805599453 + 2.0 * s * sum;
}

// Absolute error below 2e-7.
inline float PortableTanh(float x) {
  const float magnitude = x < 0.0f ? -x : x;
  const float t = PortableExp(-2.0f * magnitude);
  const float y = (1.0f - t) / (1.0f + t);
  return x < 0.0f ? -y : y;
}

}  // namespace mnemo::devices
