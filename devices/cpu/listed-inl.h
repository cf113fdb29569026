// Attention of the query rows of one KV head over listed keys. Scores of keys are exact integer products, so
// it does not matter for the result in which form and order the elements of a key are read.

// Keys that are read together, and how many of them ahead their memory is asked for: the memory's delay is
// longer than the work on one such group.
constexpr int kKeyGroup = kLanes;
constexpr int kAhead = 4 * kKeyGroup;

// Of a key of the list, what the pointers that the list has lead to.
MNEMO_INLINE const int16_t* RowOf(const ListedTask& t, int i) {
  return reinterpret_cast<const int16_t*>(t.values[i]) + (t.cache.row_offset - t.cache.value_offset);
}
// First element in the first form; keys have two elements at a time there, scales are as large as two.
MNEMO_INLINE const int16_t* ColumnOf(const ListedTask& t, int i) {
  return reinterpret_cast<const int16_t*>(t.scales[i]) - t.cache.scale_offset;
}

// Whether `count` keys from `begin` on stand in a page one after another, from a multiple of 16.
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

// GCC drops calls of functions that only prefetch: all of them are inlined. A cache line holds 32 elements.
MNEMO_INLINE void PrefetchRow(const void* row, int width) {
  const auto* p = static_cast<const uint16_t*>(row);
  for (int i = 0; i < width; i += 32) __builtin_prefetch(p + i, 0, 2);
}

// Whether keys are read from their second form; for whole pages the first is better.
MNEMO_INLINE bool InRows(const ListedTask& t) { return t.cache.row_offset != 0 && !t.pages; }

// Asks for the keys of a group, where they will be read.
MNEMO_INLINE void PrefetchKeys(const ListedTask& t, int begin) {
  const int end = begin + kKeyGroup < t.count ? begin + kKeyGroup : t.count;
  if (InRows(t)) {
    for (int i = begin; i < end; ++i) {
      __builtin_prefetch(t.scales[i], 0, 2);
      PrefetchRow(RowOf(t, i), t.head_dim);
    }
  } else if (IsRun(t, begin, kKeyGroup)) {
    __builtin_prefetch(t.scales[begin], 0, 2);
    const int16_t* column = ColumnOf(t, begin);
    for (int d = 0; d < t.head_dim; d += 2) __builtin_prefetch(column + d * kKeysPerPage, 0, 2);
  }
}

// Calls work(Count<n>{}, first_row) for tiles of n rows.
template <class Work>
MNEMO_INLINE void EachTile(int rows, Work work) {
  int row = 0;
  for (; row + kQueryTile <= rows; row += kQueryTile) work(Count<kQueryTile>{}, row);
  switch (rows - row) {
    case 1:
      return work(Count<1>{}, row);
    case 2:
      return work(Count<2>{}, row);
#if defined(MNEMO_KERNELS_AVX512)
    case 3:
      return work(Count<3>{}, row);
    case 4:
      return work(Count<4>{}, row);
    case 5:
      return work(Count<5>{}, row);
#endif
    default:
      return;
  }
}

// What is asked for while a group is scored: for each of 16 pointers a row at a distance, and a scale.
struct Ahead {
  const uint16_t* const* rows;
  const float* const* scales;
  int64_t offset;
};

// Scores of 16 keys, each in one piece. Four of them share a vector, a quarter each, so that one query's
// products with all 16 are four sums that SumQuarters joins.
template <int kRows>
MNEMO_INLINE void ScoreGroup(const int16_t* const* keys, const float* key_scales, const int16_t* q,
                             const float* q_scales, int even_dim, const Ahead& ahead, float* scores) {
  I32 sum[kRows][4];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) sum[r][j] = SetInt(0);
  }
  // What a query has beyond its last element meets zeros.
  for (int d = 0; d < even_dim; d += 8) {
    // Left alone, GCC moves the pointers to vector registers, and back for every use.
    __asm__ volatile("" : : : "memory");
    // A line of four rows at a time, since a burst would fill the queue of misses and stop the work.
    const int first = d / 8 % 4 * 4;
#pragma GCC unroll 4
    for (int i = first; i < first + 4; ++i) {
      __builtin_prefetch(ahead.rows[i] + ahead.offset + d / 32 * 32, 0, 2);
      if (d < 32) __builtin_prefetch(ahead.scales[i], 0, 2);
    }
    I32 k[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      k[j] = LoadQuarters(keys[j] + d, keys[4 + j] + d, keys[8 + j] + d, keys[12 + j] + d);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const I32 x = BroadcastQuarter(q + r * even_dim + d);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) sum[r][j] = DotPairs(sum[r][j], x, k[j]);
    }
  }
  const F32 scale = Load(key_scales);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    Store(scores + r * kKeysPerSplit, Mul(ToFloat(SumQuarters(sum[r])), Mul(scale, Set(q_scales[r]))));
  }
}

// Scores of the keys [begin, begin + kKeyGroup) of the list, from their second form.
void ScoreRows(const ListedTask& t, int begin) {
  const int even_dim = (t.head_dim + 1) / 2 * 2;
  const int16_t* keys[kKeyGroup];
  float scales[kKeyGroup];
  for (int i = 0; i < kKeyGroup; ++i) {
    scales[i] = *t.scales[begin + i];
    keys[i] = RowOf(t, begin + i);
  }
  // Behind the last keys come the first values.
  int next = begin + kAhead;
  Ahead ahead = {t.values + next, t.scales + next, t.cache.row_offset - t.cache.value_offset};
  if (next >= t.count) {
    next = (next - t.count) / kKeyGroup * kKeyGroup;
    ahead = {t.values + next, t.scales + next, 0};
  }
  auto score = [&](auto rows, int row) {
    ScoreGroup<decltype(rows)::kCount>(keys, scales, t.q + static_cast<int64_t>(row) * even_dim,
                                       t.q_scales + row, even_dim, ahead,
                                       t.scores + static_cast<int64_t>(row) * kKeysPerSplit + begin);
  };
#if defined(MNEMO_KERNELS_AVX512)
  EachTile(t.group, score);
#else  // there are not registers enough for the sums of more
  for (int row = 0; row < t.group; ++row) score(Count<1>{}, row);
#endif
}

// Lays the keys [begin, begin + kKeyGroup) of the list out as a page has them, from column `column` on.
void GatherGroup(const ListedTask& t, int begin, int column) {
  const int even_dim = (t.head_dim + 1) / 2 * 2;
  const int16_t* keys[kKeyGroup];
  for (int i = 0; i < kKeyGroup; ++i) {
    t.key_scales[column + i] = *t.scales[begin + i];
    keys[i] = ColumnOf(t, begin + i);
  }
  int16_t* out = t.keys + column * 2;
  if (IsRun(t, begin, kKeyGroup)) {
    for (int d = 0; d < even_dim; d += 2) {
      StorePairs(out + d * kKeysPerPage, LoadPairs(keys[0] + d * kKeysPerPage));
    }
    return;
  }
  for (int d = 0; d < even_dim; d += 2) {
    for (int i = 0; i < kKeyGroup; ++i) {
      __builtin_memcpy(out + d * kKeysPerPage + i * 2, keys[i] + d * kKeysPerPage, 4);
    }
  }
}

// Scores of the keys [begin, begin + 64) of the list, from their first form; `whole`: they are a page,
// `next_whole`: those behind them too.
void ScoreColumns(const ListedTask& t, int begin, bool whole, bool next_whole) {
  for (int i = 0; i < kKeysPerPage && begin + i < t.count && !whole; i += kKeyGroup) {
    if (i < kKeysPerPage - kAhead || !next_whole) PrefetchKeys(t, begin + i + kAhead);
    GatherGroup(t, begin + i, i);
  }
  const int16_t* keys = whole ? ColumnOf(t, begin) : t.keys;
  const float* scales = whole ? t.scales[begin] : t.key_scales;
  const int16_t* next = next_whole ? ColumnOf(t, begin + kKeysPerPage) : keys;
  const int even_dim = (t.head_dim + 1) / 2 * 2;
  EachTile(t.group, [&](auto rows, int row) {
    ScorePage<true, decltype(rows)::kCount>(keys, scales, t.q + static_cast<int64_t>(row) * even_dim,
                                            t.q_scales + row, even_dim,
                                            reinterpret_cast<const uint16_t*>(next),
                                            t.scores + static_cast<int64_t>(row) * kKeysPerSplit + begin);
  });
}

void ScoreKeys(const ListedTask& t) {
  for (int begin = 0; begin < kAhead; begin += kKeyGroup) PrefetchKeys(t, begin);
  if (InRows(t)) {
    for (int begin = 0; begin < t.count; begin += kKeyGroup) ScoreRows(t, begin);
    return;
  }
  bool whole = IsRun(t, 0, kKeysPerPage);
  for (int begin = 0; begin < t.count; begin += kKeysPerPage) {
    const bool next_whole = IsRun(t, begin + kKeysPerPage, kKeysPerPage);
    ScoreColumns(t, begin, whole, next_whole);
    whole = next_whole;
  }
}

// As AddValues, with the rows of values at `values`; those `ahead` are asked for.
template <class Source, int kRows>
void AddListedValues(const uint16_t* const* values, int ahead, int count, int64_t width, const float* weights,
                     float* out, int64_t out_stride) {
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
        v[j] = Source::Get(values[key] + d + j * kLanes);
        if (j % 2 == 0) __builtin_prefetch(values[key + ahead] + d + j * kLanes, 0, 2);
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

template <class Source>
void AttendListedKeys(const ListedTask& t) {
  ScoreKeys(t);
  const int64_t width = t.cache.value_width;
  for (int r = 0; r < t.group; ++r) {
    float* state = t.states + r * t.state_stride;
    for (int64_t d = 0; d < width; d += kLanes) Store(state + kStateHeader + d, Set(0.0f));
    Softmax(t.scores + r * kKeysPerSplit, 0, t.count, &state[0], &state[1]);
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

void AttendListed(const ListedTask& t) {
  if (t.cache.format == CacheFormat::kF16) {
    AttendListedKeys<SourceF16>(t);
  } else {
    AttendListedKeys<SourceBf16>(t);
  }
}
