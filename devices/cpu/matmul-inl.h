// Matrix products. A tile is 16 outputs; a call of a dot function computes kRows x 16 of them. Each output is
// the same chain of operations over the blocks, ascending, whatever kRows is.

#if defined(MNEMO_KERNELS_AVX512)
constexpr int kMaxDotRows = 8;
#else
constexpr int kMaxDotRows = 2;
#endif
// Prefetch distance for weights, into the L2 cache: it takes more requests at once than L1. The hardware
// prefetcher stops at the end of each small page.
constexpr int kPrefetchBytes = 1536;

template <bool kWide>
MNEMO_INLINE F32 LoadScales(const uint8_t* p) {
  if constexpr (kWide) {
    return Load(reinterpret_cast<const float*>(p));
  } else {
    return LoadF16(reinterpret_cast<const uint16_t*>(p));
  }
}

// A block of activations from some row of the group on. Every field has 4 bytes per row, so one pointer
// reaches all of them at fixed distances.
class BlockRows {
 public:
  MNEMO_INLINE BlockRows(const ActivationBlock* block, int row)
      : p_(reinterpret_cast<const char*>(block) + 4 * row) {}
  MNEMO_INLINE const int8_t* Values(int word, int r) const {
    return reinterpret_cast<const int8_t*>(p_ + (word * kGroupRows + r) * 4);
  }
  MNEMO_INLINE float Scale(int r) const { return Read<float>(offsetof(ActivationBlock, scale), r); }
  MNEMO_INLINE float ScaledSum(int r) const { return Read<float>(offsetof(ActivationBlock, scaled_sum), r); }
  MNEMO_INLINE int32_t MinusSum(int r) const {
    return Read<int32_t>(offsetof(ActivationBlock, minus_sum), r);
  }
  MNEMO_INLINE int32_t MinusFirstSum(int r) const {
    return Read<int32_t>(offsetof(ActivationBlock, minus_first_sum), r);
  }
  MNEMO_INLINE void Next() { p_ += sizeof(ActivationBlock); }

 private:
  template <typename T>
  MNEMO_INLINE T Read(size_t offset, int r) const {
    T value;
    __builtin_memcpy(&value, p_ + offset + static_cast<size_t>(r) * 4, sizeof value);
    return value;
  }
  const char* p_;
};

template <bool kNibbles, int kRows>
MNEMO_INLINE void DotWord(I32 word, const BlockRows& x, int index, I32 (&sum)[kRows]) {
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) sum[r] = DotQuad<kNibbles>(sum[r], word, x.Values(index, r));
}

// Words [first, first + 4) of bytes.
template <bool kNibbles, int kRows>
MNEMO_INLINE void DotByteWords(const uint8_t* w, const BlockRows& x, int first, I32 (&sum)[kRows]) {
#pragma GCC unroll 4
  for (int i = first; i < first + 4; ++i) DotWord<kNibbles>(LoadBytes(w + i * 64), x, i, sum);
}

template <int kRows>
MNEMO_INLINE void DotNibbleWords(const uint8_t* w, const BlockRows& x, I32 (&sum)[kRows]) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const I32 word = LoadBytes(w + i * 64);
    DotWord<true>(LowNibbles(word), x, i, sum);
    DotWord<true>(HighNibbles(word), x, 4 + i, sum);
  }
}

// total += (scale * x scale) * sum.
template <int kRows>
MNEMO_INLINE void AddScaled(F32 scale, const BlockRows& x, const I32 (&sum)[kRows], F32 (&total)[kRows]) {
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) total[r] = Fma(Mul(scale, Set(x.Scale(r))), ToFloat(sum[r]), total[r]);
}

// Computes -offset * sum of x, so that stored weights can be multiplied without subtracting their offset
// first.
template <int kShift>
MNEMO_INLINE I32 FirstSum(int32_t minus_sum) {
  return kShift == 0 ? SetInt(0) : ShiftLeft<kShift>(SetInt(minus_sum));
}

template <PackedFormat kFormat, int kRows>
MNEMO_INLINE void AddBlock(const uint8_t* w, const BlockRows& x, F32 (&total)[kRows]) {
  constexpr FormatTraits kTraits = TraitsOf(kFormat);
  constexpr int kShift = kTraits.offset_shift;
  const uint8_t* scales = w + kTraits.weight_bytes();
  I32 sum[kRows];
  if constexpr (kTraits.halves) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) sum[r] = FirstSum<kShift>(x.MinusFirstSum(r));
    DotByteWords<kTraits.nibbles>(w, x, 0, sum);
    AddScaled(LoadScales<true>(scales), x, sum, total);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) sum[r] = FirstSum<kShift>(x.MinusSum(r) - x.MinusFirstSum(r));
    DotByteWords<kTraits.nibbles>(w, x, 4, sum);
    AddScaled(LoadScales<true>(scales + kTraits.scale_bytes()), x, sum, total);
    return;
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) sum[r] = FirstSum<kShift>(x.MinusSum(r));
  if constexpr (kTraits.nibbles) {
    DotNibbleWords(w, x, sum);
  } else {
    DotByteWords<false>(w, x, 0, sum);
    DotByteWords<false>(w, x, 4, sum);
  }
  AddScaled(LoadScales<kTraits.wide_scales>(scales), x, sum, total);
  if constexpr (kTraits.minimum) {
    const F32 minimum = LoadScales<kTraits.wide_scales>(scales + kTraits.scale_bytes());
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) total[r] = Fma(minimum, Set(x.ScaledSum(r)), total[r]);
  }
}

// Computes out [kRows][16].
template <PackedFormat kFormat, int kRows>
void DotTile(const uint8_t* w, const ActivationBlock* group, int row, int64_t blocks, int digits,
             float* out) {
  constexpr int kBlockBytes = TraitsOf(kFormat).block_bytes();
  BlockRows x(group, row);
  F32 total[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) total[r] = Set(0.0f);
  for (int64_t b = 0; b < blocks; ++b, w += kBlockBytes) {
    if constexpr (kRows <= 4) {
#pragma GCC unroll 16
      for (int i = 0; i < kBlockBytes; i += 64) __builtin_prefetch(w + kPrefetchBytes + i, 0, 2);
    }
    int digit = 0;
    do {
      AddBlock<kFormat>(w, x, total);
      x.Next();
    } while (++digit < digits);
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) Store(out + r * kTileRows, total[r]);
}

template <PackedFormat kFormat>
MNEMO_INLINE F32 LoadFloatWeights(const uint8_t* w, int64_t col) {
  if constexpr (kFormat == PackedFormat::kF32) {
    return Load(reinterpret_cast<const float*>(w) + col * kTileRows);
  } else if constexpr (kFormat == PackedFormat::kF16) {
    return LoadF16(reinterpret_cast<const uint16_t*>(w) + col * kTileRows);
  } else {
    return LoadBf16(reinterpret_cast<const uint16_t*>(w) + col * kTileRows);
  }
}

template <PackedFormat kFormat, int kRows>
void DotFloatTile(const uint8_t* w, const float* x, int64_t x_stride, int64_t cols, float* out) {
  F32 total[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) total[r] = Set(0.0f);
  for (int64_t c = 0; c < cols; ++c) {
    const F32 weight = LoadFloatWeights<kFormat>(w, c);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) total[r] = Fma(weight, Set(x[r * x_stride + c]), total[r]);
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) Store(out + r * kTileRows, total[r]);
}

using DotFunction = void (*)(const uint8_t*, const ActivationBlock*, int, int64_t, int, float*);
using DotFloatFunction = void (*)(const uint8_t*, const float*, int64_t, int64_t, float*);

template <PackedFormat kFormat>
DotFunction DotOf(int rows) {
  static constexpr DotFunction kFunctions[] = {
    DotTile<kFormat, 1>,
    DotTile<kFormat, 2>,
#if defined(MNEMO_KERNELS_AVX512)
    DotTile<kFormat, 3>,
    DotTile<kFormat, 4>,
    DotTile<kFormat, 5>,
    DotTile<kFormat, 6>,
    DotTile<kFormat, 7>,
    DotTile<kFormat, 8>,
#endif
  };
  return kFunctions[rows - 1];
}

DotFunction FindDot(PackedFormat format, int rows) {
  switch (format) {
    case PackedFormat::kNibbleMin:
      return DotOf<PackedFormat::kNibbleMin>(rows);
    case PackedFormat::kNibble:
      return DotOf<PackedFormat::kNibble>(rows);
    case PackedFormat::kNibbleMinF:
      return DotOf<PackedFormat::kNibbleMinF>(rows);
    case PackedFormat::kByte128:
      return DotOf<PackedFormat::kByte128>(rows);
    case PackedFormat::kByte16:
      return DotOf<PackedFormat::kByte16>(rows);
    case PackedFormat::kByteMin:
      return DotOf<PackedFormat::kByteMin>(rows);
    case PackedFormat::kByteMinF:
      return DotOf<PackedFormat::kByteMinF>(rows);
    default:
      return DotOf<PackedFormat::kByteHalvesF>(rows);
  }
}

template <PackedFormat kFormat>
DotFloatFunction DotFloatOf(int rows) {
  static constexpr DotFloatFunction kFunctions[] = {
    DotFloatTile<kFormat, 1>,
    DotFloatTile<kFormat, 2>,
#if defined(MNEMO_KERNELS_AVX512)
    DotFloatTile<kFormat, 3>,
    DotFloatTile<kFormat, 4>,
    DotFloatTile<kFormat, 5>,
    DotFloatTile<kFormat, 6>,
    DotFloatTile<kFormat, 7>,
    DotFloatTile<kFormat, 8>,
#endif
  };
  return kFunctions[rows - 1];
}

DotFloatFunction FindDotFloat(PackedFormat format, int rows) {
  switch (format) {
    case PackedFormat::kF32:
      return DotFloatOf<PackedFormat::kF32>(rows);
    case PackedFormat::kF16:
      return DotFloatOf<PackedFormat::kF16>(rows);
    default:
      return DotFloatOf<PackedFormat::kBF16>(rows);
  }
}

// x / (1 + 2^(factor x)), with factor = -log2(e) silu.
MNEMO_INLINE F32 Silu(F32 x) {
  return Div(x, Add(Set(1.0f), Exp2(Min(Mul(x, Set(-1.44269504f)), Set(126.0f)))));
}

// 0.5 x (1 + tanh(u)) = x / (1 + e^(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3) (Hendrycks and Gimpel 2016).
MNEMO_INLINE F32 Gelu(F32 x) {
  const F32 cubic = Mul(Mul(x, x), x);
  const F32 u = Mul(Fma(cubic, Set(0.044715f), x), Set(0.797884561f));
  return Div(x, Add(Set(1.0f), Exp2(Min(Mul(u, Set(-2.88539008f)), Set(126.0f)))));
}

MNEMO_INLINE void DotRows(const MatMulTask& t, const MatMulPart& part, int64_t tile, int row, int rows,
                          float* out) {
  const uint8_t* w = part.weight + tile * TileBytes(part.format, t.cols);
  if (IsFloatFormat(part.format)) {
    FindDotFloat(part.format, rows)(w, t.x_float + row * t.x_float_stride, t.x_float_stride, t.cols, out);
    return;
  }
  const int64_t blocks = t.cols / kBlockCols;
  FindDot(part.format, rows)(w, t.x + row / kGroupRows * blocks * t.digits, row % kGroupRows, blocks,
                             t.digits, out);
}

MNEMO_INLINE F32 Biased(const MatMulPart& part, int64_t first, int64_t count, F32 y) {
  return part.bias == nullptr ? y : Add(y, LoadFirst(part.bias + first, count));
}

void MatMul(const MatMulTask& t) {
  const bool gate = t.epilogue == Epilogue::kSiluGate || t.epilogue == Epilogue::kGeluGate;
  const MatMulPart* part = t.parts;
  int64_t part_begin = 0;
  for (int64_t index = t.tile_begin; index < t.tile_end; ++index) {
    while (!gate && index - part_begin >= (part->rows + kTileRows - 1) / kTileRows) {
      part_begin += (part->rows + kTileRows - 1) / kTileRows;
      ++part;
    }
    const int64_t tile = index - part_begin;
    const int64_t first = tile * kTileRows;
    const int64_t count = part->rows - first;
    int rows = 0;
    for (int row = t.row_begin; row < t.row_end; row += rows) {
      rows = t.row_end - row < kMaxDotRows ? t.row_end - row : kMaxDotRows;
      float y[kMaxDotRows * kTileRows];
      float up[kMaxDotRows * kTileRows];
      DotRows(t, *part, tile, row, rows, y);
      if (gate) DotRows(t, t.parts[1], tile, row, rows, up);
      for (int r = 0; r < rows; ++r) {
        float* out = part->out + (row + r) * part->out_stride + first;
        F32 value = Biased(*part, first, count, Load(y + r * kTileRows));
        if (gate) {
          const F32 other = Biased(t.parts[1], first, count, Load(up + r * kTileRows));
          value = Mul(t.epilogue == Epilogue::kSiluGate ? Silu(value) : Gelu(value), other);
        } else if (t.epilogue == Epilogue::kAccumulate) {
          value = Add(LoadFirst(out, count), value);
        }
        StoreFirst(out, value, count);
      }
    }
  }
}
