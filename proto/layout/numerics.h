#pragma once

// The integer arithmetic of scores and ranks. CPU, GPU and RTL compute exactly this; README.md gives the
// reasons for the widths. Right shifts of negative values are arithmetic (floor).

#include "proto/layout/abi.h"
#include "proto/layout/record.h"

MNEMO_LAYOUT_BEGIN

// Floor of kGroupMax: 256 octaves below the best.
constexpr int32_t kRankFloor = -4095;
// Floor of kGroupPlainMax; -32768 marks entries that do not count.
constexpr int32_t kPlainRankFloor = -32767;
constexpr int32_t kRankBins = 4096;
constexpr int32_t kReluRankShift = 5;  // 64 queries * 32768 * 32767 >> 5 fits 31 bits
// Chosen so that 64 of them fit 31 bits.
constexpr uint32_t kExp2One = 1U << 24;

// T8[i] = round(128 * 2^(i / 8)).
MNEMO_LAYOUT_FN int32_t ScaleMantissa(uint32_t scale) {
  return static_cast<int32_t>(uint64_t{0xEBD7C5B5A6988C80} >> (8 * (scale & 7)) & 0xFF);
}

// round(2^24 * 2^(-x / 16)), shifted down by whole octaves; x >= 0 in 1/16 log2 units.
MNEMO_LAYOUT_FN uint32_t Exp2Fraction(uint32_t x) {
  constexpr uint32_t kTable[16] = {16777216, 16065917, 15384775, 14732511, 14107901, 13509772,
                                   12937002, 12388516, 11863283, 11360319, 10878679, 10417458,
                                   9975792,  9552851,  9147842,  8760003};
  return x >> 4 >= 32 ? 0 : kTable[x & 15] >> (x >> 4);
}

MNEMO_LAYOUT_FN int32_t SaturateI16(int32_t value) {
  return value < -32768 ? -32768 : value > 32767 ? 32767 : value;
}

MNEMO_LAYOUT_FN int32_t Clamp(int32_t value, int32_t low, int32_t high) {
  return value < low ? low : value > high ? high : value;
}

// Returns the smallest shift that brings every possible dot * T8 into 16 bits: 127 (query) * code_max * dim *
// 235.
MNEMO_LAYOUT_FN int32_t DotShift(int32_t code_max, uint32_t dim) {
  int64_t largest = int64_t{127} * code_max * dim * 235;
  int32_t shift = 0;
  while (largest > 32767) {
    largest >>= 1;
    ++shift;
  }
  return shift;
}

// Returns one part of y: that of the base, a token or a row. top_octave is that of the page for tokens, scale
// >> 3 for all others. Every product fits 32 bits: |dot * T8| < 2^31, |v| <= 2^15, multiplier < 2^16.
MNEMO_LAYOUT_FN int32_t ScoreTerm(int32_t dot, uint32_t scale, uint32_t top_octave, int32_t dot_shift,
                                  uint32_t multiplier, uint32_t shift) {
  const int32_t octaves_below =
      Clamp(static_cast<int32_t>(top_octave) - static_cast<int32_t>(scale >> 3), 0, 31);
  const int32_t v = (dot * ScaleMantissa(scale)) >> Clamp(dot_shift + octaves_below, 0, 31);
  // 105 = 128 (bias of `shift`) - 16 (octaves) - 7 (bits of T8 in a scale).
  const int32_t down = static_cast<int32_t>(shift) - 105 - dot_shift - static_cast<int32_t>(top_octave);
  return SaturateI16((v * static_cast<int32_t>(multiplier)) >> Clamp(down, 0, 31));
}

MNEMO_LAYOUT_FN int32_t AddScores(int32_t base, int32_t token) { return SaturateI16(base + token); }

// Contribution of one query of the group to the rank of an entry; y <= best.
MNEMO_LAYOUT_FN int32_t MaxTerm(int32_t y, int32_t best) {
  return y - best < kRankFloor ? kRankFloor : y - best;
}
MNEMO_LAYOUT_FN int32_t PlainMaxTerm(int32_t y) { return y < kPlainRankFloor ? kPlainRankFloor : y; }
MNEMO_LAYOUT_FN uint32_t Exp2Term(int32_t y, int32_t best) {
  return Exp2Fraction(static_cast<uint32_t>(best - y));
}

// Contribution of one query to the sum of kScoreReluDot.
MNEMO_LAYOUT_FN int64_t ReluTerm(int32_t y, int32_t weight) { return y > 0 ? int64_t{y} * weight : 0; }

// Returns whether a share is at least `threshold` / 65536 of the total.
MNEMO_LAYOUT_FN bool ReachesShare(uint32_t share, uint64_t total, uint32_t threshold) {
  return share >= (total >> 16) * threshold + (((total & 0xFFFF) * threshold) >> 16);
}

// One value of kSelectWeightedSum, aligned to the largest octave of the scan.
MNEMO_LAYOUT_FN int32_t AlignedValue(int32_t code, uint32_t scale, uint32_t top_octave) {
  return (code * ScaleMantissa(scale)) >>
         Clamp(static_cast<int32_t>(top_octave) - static_cast<int32_t>(scale >> 3), 0, 31);
}

MNEMO_LAYOUT_END
