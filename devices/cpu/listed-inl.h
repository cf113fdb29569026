// Attention of the query rows of one KV head over listed keys. Scores are exact integer products, so the form
// and order in which the elements of a key are read do not affect the result.

// Keys that are read together; also the prefetch distance in keys. Memory latency is longer than the work on
// one such group.
constexpr int kKeyGroup = kLanes;
constexpr int kAhead = 4 * kKeyGroup;

// Addresses of one key of the list, from the list's pointers.
template <class Keys>
MNEMO_INLINE const typename Keys::Element* RowOf(const ListedTask& t, int i) {
  return reinterpret_cast<const typename Keys::Element*>(t.values[i] +
                                                         (t.cache.row_offset - t.cache.value_offset));
}
// Returns the first element in the first form; the adjacent elements of a key there are as large as its
// scale.
template <class Keys>
MNEMO_INLINE const typename Keys::Element* ColumnOf(const ListedTask& t, int i) {
  static_assert(Keys::kColumn * sizeof(typename Keys::Element) == sizeof(float));
  return reinterpret_cast<const typename Keys::Element*>(reinterpret_cast<const uint16_t*>(t.scales[i]) -
                                                         t.cache.scale_offset);
}

// Returns whether `count` keys from `begin` on are adjacent in a page, starting at a multiple of 16.
MNEMO_INLINE bool IsRun(const ListedTask& t, int begin, int count) {
  if (begin + count > t.count) return false;
  const float* const* scales = t.scales + begin;
  if (scales[count - 1] != scales[0] + (count - 1)) return false;
  if (reinterpret_cast<uintptr_t>(scales[0]) % (kKeyGroup * sizeof(float)) != 0) return false;
  for (int i = 1; i + 1 < count; ++i) {
    if (scales[i] != scales[0] + i) return false;
  }
  return true;
}

// GCC removes calls of functions that only prefetch, so all of them are inlined.
template <class Element>
MNEMO_INLINE void PrefetchRow(const Element* row, int width) {
  for (int i = 0; i < width; i += 64 / static_cast<int>(sizeof(Element))) __builtin_prefetch(row + i, 0, 2);
}

// Returns whether keys are read from their second form; the first form is better for whole pages.
MNEMO_INLINE bool InRows(const ListedTask& t) { return t.cache.row_offset != 0 && !t.pages; }

// Prefetches the keys of a group from the form that will be read.
template <class Keys>
MNEMO_INLINE void PrefetchKeys(const ListedTask& t, int begin) {
  const int end = begin + kKeyGroup < t.count ? begin + kKeyGroup : t.count;
  if (InRows(t)) {
    for (int i = begin; i < end; ++i) {
      __builtin_prefetch(t.scales[i], 0, 2);
      PrefetchRow(RowOf<Keys>(t, i), t.head_dim);
    }
  } else if (IsRun(t, begin, kKeyGroup)) {
    __builtin_prefetch(t.scales[begin], 0, 2);
    const typename Keys::Element* column = ColumnOf<Keys>(t, begin);
    for (int d = 0; d < t.head_dim; d += Keys::kColumn) {
      __builtin_prefetch(column + d * kKeysPerPage, 0, 2);
    }
  }
}

MNEMO_INLINE Queries QueriesOf(const ListedTask& t, int first_row) {
  return {t.q + int64_t{first_row} * QueryStride(t.head_dim), t.q_scales + first_row, t.head_dim};
}

// Scores the keys [begin, begin + kKeyGroup) of the list, from their second form.
template <class Keys>
void ScoreRows(const ListedTask& t, int begin) {
  const typename Keys::Element* keys[kKeyGroup];
  float scales[kKeyGroup];
  for (int i = 0; i < kKeyGroup; ++i) {
    scales[i] = *t.scales[begin + i];
    keys[i] = RowOf<Keys>(t, begin + i);
  }
  // After the last keys, the first values are prefetched.
  int next = begin + kAhead;
  Ahead ahead = {t.values + next, t.scales + next, t.cache.row_offset - t.cache.value_offset};
  if (next >= t.count) {
    next = (next - t.count) / kKeyGroup * kKeyGroup;
    ahead = {t.values + next, t.scales + next, 0};
  }
  auto score = [&](auto rows, int row) {
    Keys::template ScoreGroup<decltype(rows)::kCount>(
        keys, scales, QueriesOf(t, row), ahead, t.scores + static_cast<int64_t>(row) * kKeysPerSplit + begin);
  };
#if defined(MNEMO_KERNELS_AVX512)
  EachTile(t.group, score);
#else  // too few registers for the sums of more rows
  for (int row = 0; row < t.group; ++row) score(Count<1>{}, row);
#endif
}

// Writes the keys [begin, begin + kKeyGroup) of the list in the layout of a page, from column `column` on.
template <class Keys>
void GatherGroup(const ListedTask& t, int begin, int column) {
  using Element = typename Keys::Element;
  constexpr int kColumn = Keys::kColumn;
  const Element* keys[kKeyGroup];
  for (int i = 0; i < kKeyGroup; ++i) {
    t.key_scales[column + i] = *t.scales[begin + i];
    keys[i] = ColumnOf<Keys>(t, begin + i);
  }
  auto* out = reinterpret_cast<Element*>(t.keys) + column * kColumn;
  if (IsRun(t, begin, kKeyGroup)) {
    for (int d = 0; d < t.head_dim; d += kColumn) {
      __builtin_memcpy(out + d * kKeysPerPage, keys[0] + d * kKeysPerPage, kKeyGroup * sizeof(float));
    }
    return;
  }
  for (int d = 0; d < t.head_dim; d += kColumn) {
    for (int i = 0; i < kKeyGroup; ++i) {
      __builtin_memcpy(out + d * kKeysPerPage + i * kColumn, keys[i] + d * kKeysPerPage, sizeof(float));
    }
  }
}

// Scores the keys [begin, begin + 64) of the list, from their first form. `whole`: they are a page;
// `next_whole`: the keys after them are one too.
template <class Keys>
void ScoreColumns(const ListedTask& t, int begin, bool whole, bool next_whole) {
  for (int i = 0; i < kKeysPerPage && begin + i < t.count && !whole; i += kKeyGroup) {
    if (i < kKeysPerPage - kAhead || !next_whole) PrefetchKeys<Keys>(t, begin + i + kAhead);
    GatherGroup<Keys>(t, begin + i, i);
  }
  using Element = typename Keys::Element;
  const Element* keys = whole ? ColumnOf<Keys>(t, begin) : reinterpret_cast<const Element*>(t.keys);
  const float* scales = whole ? t.scales[begin] : t.key_scales;
  const Element* next = next_whole ? ColumnOf<Keys>(t, begin + kKeysPerPage) : keys;
  EachTile(t.group, [&](auto rows, int row) {
    Keys::template ScorePage<true, decltype(rows)::kCount>(
        keys, scales, QueriesOf(t, row), next, t.scores + static_cast<int64_t>(row) * kKeysPerSplit + begin);
  });
}

template <class Keys>
void ScoreKeys(const ListedTask& t) {
  for (int begin = 0; begin < kAhead; begin += kKeyGroup) PrefetchKeys<Keys>(t, begin);
  if (InRows(t)) {
    for (int begin = 0; begin < t.count; begin += kKeyGroup) ScoreRows<Keys>(t, begin);
    return;
  }
  bool whole = IsRun(t, 0, kKeysPerPage);
  for (int begin = 0; begin < t.count; begin += kKeysPerPage) {
    const bool next_whole = IsRun(t, begin + kKeysPerPage, kKeysPerPage);
    ScoreColumns<Keys>(t, begin, whole, next_whole);
    whole = next_whole;
  }
}

// As AddValues, with the rows of values at `values`; those at `ahead` are prefetched.
template <class Source, int kRows>
void AddListedValues(const uint16_t* const* values, int ahead, int count, int64_t width, const float* weights,
                     float* out, int64_t out_stride) {
  using Element = typename Source::Element;
  int64_t d = 0;
  auto columns = [&](auto vectors) {
    constexpr int kVectors = decltype(vectors)::kCount;
    F32 sum[kRows][kVectors];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) sum[r][j] = Load(out + r * out_stride + d + j * kLanes);
    }
    for (int key = 0; key < count; ++key) {
      F32 v[kVectors];
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) {
        v[j] = Source::Get(reinterpret_cast<const Element*>(values[key]) + d + j * kLanes);
        if (BeginsLine<Element>(j)) {
          __builtin_prefetch(reinterpret_cast<const Element*>(values[key + ahead]) + d + j * kLanes, 0, 2);
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const F32 weight = Set(weights[r * kKeysPerSplit + key]);
#pragma GCC unroll 4
        for (int j = 0; j < kVectors; ++j) sum[r][j] = Fma(weight, v[j], sum[r][j]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) Store(out + r * out_stride + d + j * kLanes, sum[r][j]);
    }
  };
  for (; d + kVectorTile * kLanes <= width; d += kVectorTile * kLanes) columns(Count<kVectorTile>{});
  for (; d < width; d += kLanes) columns(Count<1>{});
}

// Values of a list, in the form that SumBytes reads.
struct ListedRows {
  struct OfPage {
    const uint16_t* const* values;

    MNEMO_INLINE const int8_t* Row(int64_t key) const { return reinterpret_cast<const int8_t*>(values[key]); }
    MNEMO_INLINE const int8_t* Ahead(int64_t key) const { return Row(key + kAhead); }
  };
  const uint16_t* const* values;

  MNEMO_INLINE OfPage Page(int key) const { return {values + key}; }
};

MNEMO_INLINE void WeighListedBytes(const ListedTask& t) {
  float value_scales[kKeysPerSplit];
  for (int i = 0; i < (t.count + kLanes - 1) / kLanes * kLanes; ++i) value_scales[i] = *t.scales[i];
  const KeyRange all{0, t.count};
  EachTile(t.group, [&](auto rows, int first_row) {
    constexpr int kRows = decltype(rows)::kCount;
    float* weights = t.scores + static_cast<int64_t>(first_row) * kKeysPerSplit;
    float* states = t.states + first_row * t.state_stride;
    float factors[kRows];
    for (int r = 0; r < kRows; ++r) {
      factors[r] = FixedSoftmax(
          weights + r * kKeysPerSplit, all, all, [&](int i) { return value_scales + i; },
          states + r * t.state_stride);
    }
    SumBytes<kRows>(ListedRows{t.values}, all, t.cache.value_width, weights, factors, states + kStateHeader,
                    t.state_stride);
  });
}

template <class Source>
MNEMO_INLINE void WeighListedValues(const ListedTask& t) {
  const int64_t width = t.cache.value_width;
  for (int r = 0; r < t.group; ++r) {
    float* state = t.states + r * t.state_stride;
    Softmax(t.scores + r * kKeysPerSplit, {0, t.count}, state, [](int, F32 weight) { return weight; });
    for (int64_t d = 0; d < width; d += kLanes) Store(state + kStateHeader + d, Set(0.0f));
  }
  for (int begin = 0; begin < t.count; begin += kKeysPerPage) {
    const int count = t.count - begin < kKeysPerPage ? t.count - begin : kKeysPerPage;
    EachTile(t.group, [&](auto rows, int first_row) {
      AddListedValues<Source, decltype(rows)::kCount>(
          t.values + begin, kAhead, count, width,
          t.scores + static_cast<int64_t>(first_row) * kKeysPerSplit + begin,
          t.states + first_row * t.state_stride + kStateHeader, t.state_stride);
    });
  }
}

template <class Keys, class Source>
void AttendListedKeys(const ListedTask& t) {
  ScoreKeys<Keys>(t);
  if constexpr (Keys::kScaledValues) {
    WeighListedBytes(t);
  } else {
    WeighListedValues<Source>(t);
  }
}

void AttendListed(const ListedTask& t) {
  switch (t.cache.format) {
    case CacheFormat::kF16:
      return AttendListedKeys<Keys16, SourceF16>(t);
    case CacheFormat::kBF16:
      return AttendListedKeys<Keys16, SourceBf16>(t);
    case CacheFormat::kQ8:
      return AttendListedKeys<Keys8, SourceBytes>(t);
  }
}
