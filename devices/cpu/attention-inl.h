// Attention of query rows over one split of keys, in two passes: all scores and their maximum, then the
// weighted sum of values, keys ascending. Each (row, head) is computed in the same way whatever rows share
// its tile.

// Sources of values.
struct SourceF32 {
  using Element = float;
  static constexpr bool kInCache = false;
  MNEMO_INLINE static F32 Get(const float* p) { return Load(p); }
};
struct SourceF16 {
  using Element = uint16_t;
  static constexpr bool kInCache = true;
  MNEMO_INLINE static F32 Get(const uint16_t* p) { return LoadF16(p); }
};
struct SourceBf16 {
  using Element = uint16_t;
  static constexpr bool kInCache = true;
  MNEMO_INLINE static F32 Get(const uint16_t* p) { return LoadBf16(p); }
};

// Returns whether vector j of a row is the first of a cache line.
template <class Element>
constexpr bool BeginsLine(int j) {
  return j * kLanes * static_cast<int>(sizeof(Element)) % 64 == 0;
}

// out[r] += weight of key x value of key, for keys [begin, end) of a page in ascending order; values
// [64][stride]. While values are read from the cache, the same amount of memory is prefetched at `next`.
template <class Source, int kRows>
MNEMO_INLINE void AddValues(const typename Source::Element* values, const typename Source::Element* next,
                            int64_t stride, const float* weights, int begin, int end, float* out,
                            int64_t out_stride) {
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
    for (int key = begin; key < end; ++key) {
      F32 v[kVectors];
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) {
        v[j] = Source::Get(values + key * stride + d + j * kLanes);
        if (Source::kInCache && BeginsLine<Element>(j)) {
          __builtin_prefetch(next + key * stride + d + j * kLanes, 0, 2);
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
  for (; d + kVectorTile * kLanes <= stride; d += kVectorTile * kLanes) columns(Count<kVectorTile>{});
  for (; d < stride; d += kLanes) columns(Count<1>{});
}

// Returns the keys that the query at `position` sees, counted from the first key of the split.
MNEMO_INLINE KeyRange VisibleKeys(const AttendTask& t, int position) {
  const int64_t origin = static_cast<int64_t>(t.split) * kKeysPerSplit;
  const int64_t oldest = t.window > 0 && position - t.window + 1 > 0 ? position - t.window + 1 : 0;
  auto within = [](int64_t x) {
    return static_cast<int>(x < 0 ? 0 : (x > kKeysPerSplit ? kKeysPerSplit : x));
  };
  KeyRange range{within(oldest - origin), within(position + 1 - origin)};
  if (range.end < range.begin) range.end = range.begin;
  return range;
}

MNEMO_INLINE const uint16_t* PageOf(const AttendTask& t, int page) {
  return t.cache.Page(t.pages[t.split * (kKeysPerSplit / kKeysPerPage) + page]);
}

// Prefetch distance in pages: processing one page takes less time than a memory access.
constexpr int kPagesAhead = 2;

// Returns a page of this split or of the next one, or the last page that exists.
MNEMO_INLINE const uint16_t* PageAhead(const AttendTask& t, int page) {
  const int last = (t.position_begin + t.positions - 1) / kKeysPerPage;
  const int wanted = t.split * (kKeysPerSplit / kKeysPerPage) + page;
  return t.cache.Page(t.pages[wanted < last ? wanted : last]);
}

// Returns the values of a page of the split.
template <class Source>
MNEMO_INLINE const typename Source::Element* ValuesOf(const AttendTask& t, int page) {
  if constexpr (Source::kInCache) {
    return reinterpret_cast<const typename Source::Element*>(PageOf(t, page) + t.cache.value_offset);
  } else {
    return t.converted + static_cast<int64_t>(page) * kKeysPerPage * t.cache.value_width;
  }
}

constexpr int PagesUpTo(int key) { return (key + kKeysPerPage - 1) / kKeysPerPage; }

// Memory to prefetch while the values of a page are read, of the same size. First the values of a later page,
// which end at `page_end`, then the keys that are read next.
template <class Source>
MNEMO_INLINE const typename Source::Element* AfterValues(const AttendTask& t, int page, int page_end) {
  const int ahead = page + kPagesAhead;
  if (ahead < page_end) return ValuesOf<Source>(t, ahead);
  if (t.next_split_follows) return reinterpret_cast<const typename Source::Element*>(PageAhead(t, ahead));
  return ValuesOf<Source>(t, page);
}

// Converts the scores of visible keys to weights, and computes the weighted sum of values in float32, keys
// ascending.
template <class Source, int kRows>
MNEMO_INLINE void WeighValues(const AttendTask& t, const KeyRange (&range)[kRows], KeyRange all,
                              float* const* states) {
  const int64_t width = t.cache.value_width;
  // Keys that every row sees.
  KeyRange common{0, kKeysPerSplit};
  for (int r = 0; r < kRows; ++r) {
    common.begin = range[r].begin > common.begin ? range[r].begin : common.begin;
    common.end = range[r].end < common.end ? range[r].end : common.end;
    Softmax(t.scores + r * kKeysPerSplit, range[r], states[r], [](int, F32 weight) { return weight; });
    for (int64_t d = 0; d < width; d += kLanes) Store(states[r] + kStateHeader + d, Set(0.0f));
  }
  if (common.end < common.begin) common.end = common.begin;
  // A key outside of a row's range is skipped, not multiplied by zero: an old value there may be anything.
  auto single = [&](int r, int page, int begin, int end) {
    if (begin >= end) return;
    AddValues<Source, 1>(ValuesOf<Source>(t, page), ValuesOf<Source>(t, page), width,
                         t.scores + r * kKeysPerSplit + page * kKeysPerPage, begin, end,
                         states[r] + kStateHeader, t.state_stride);
  };
  auto clamp = [](int x, int low, int high) { return x < low ? low : (x > high ? high : x); };
  const int page_end = PagesUpTo(all.end);
  for (int page = all.begin / kKeysPerPage; page < page_end; ++page) {
    const int origin = page * kKeysPerPage;
    const int begin = clamp(common.begin - origin, 0, kKeysPerPage);
    const int end = clamp(common.end - origin, begin, kKeysPerPage);
    for (int r = 0; r < kRows; ++r) {
      single(r, page, clamp(range[r].begin - origin, 0, begin), clamp(range[r].end - origin, 0, begin));
    }
    if (begin < end) {
      const typename Source::Element* values = ValuesOf<Source>(t, page);
      const typename Source::Element* next = values;
      if constexpr (Source::kInCache) next = AfterValues<Source>(t, page, page_end);
      AddValues<Source, kRows>(values, next, width, t.scores + origin, begin, end, states[0] + kStateHeader,
                               t.state_stride);
    }
    for (int r = 0; r < kRows; ++r) {
      single(r, page, clamp(range[r].begin - origin, end, kKeysPerPage),
             clamp(range[r].end - origin, end, kKeysPerPage));
    }
  }
}

// Values of the pages of a split, in the form that SumBytes reads.
struct PageRows {
  struct OfPage {
    const int8_t* values;
    const int8_t* ahead;
    int64_t stride;

    MNEMO_INLINE const int8_t* Row(int64_t key) const { return values + key * stride; }
    MNEMO_INLINE const int8_t* Ahead(int64_t key) const { return ahead + key * stride; }
  };
  const AttendTask& t;
  int page_end;

  MNEMO_INLINE OfPage Page(int key) const {
    const int page = key / kKeysPerPage;
    return {ValuesOf<SourceBytes>(t, page), AfterValues<SourceBytes>(t, page, page_end),
            t.cache.row_stride * int64_t{2}};
  }
};

// As WeighValues, for values of 8 bits.
template <int kRows>
MNEMO_INLINE void WeighBytes(const AttendTask& t, const KeyRange (&range)[kRows], KeyRange all,
                             float* const* states) {
  float factors[kRows];
  const auto scales = [&](int i) {
    return reinterpret_cast<const float*>(PageOf(t, i / kKeysPerPage) + t.cache.scale_offset) +
           i % kKeysPerPage;
  };
  for (int r = 0; r < kRows; ++r) {
    factors[r] = FixedSoftmax(t.scores + r * kKeysPerSplit, range[r], all, scales, states[r]);
  }
  SumBytes<kRows>(PageRows{t, PagesUpTo(all.end)}, all, t.cache.value_width, t.scores, factors,
                  states[0] + kStateHeader, t.state_stride);
}

template <class Keys, class Source, int kRows>
void AttendTile(const AttendTask& t, int first_row) {
  const Queries queries = {t.q + int64_t{first_row} * QueryStride(t.head_dim), t.q_scales + first_row,
                           t.head_dim};
  KeyRange range[kRows];
  // Keys that any row sees.
  KeyRange all{kKeysPerSplit, 0};
  float* states[kRows];
  for (int r = 0; r < kRows; ++r) {
    const int row = first_row + r;
    const int position = row / t.group;
    range[r] = VisibleKeys(t, t.position_begin + position);
    states[r] = t.states + row * t.state_stride;
    if (range[r].begin < range[r].end) {
      all.begin = range[r].begin < all.begin ? range[r].begin : all.begin;
      all.end = range[r].end > all.end ? range[r].end : all.end;
    }
  }
  const int page_begin = all.begin / kKeysPerPage;
  const int page_end = PagesUpTo(all.end);
  for (int page = page_begin; page < page_end; ++page) {
    const uint16_t* keys = PageOf(t, page);
    const int ahead = page + kPagesAhead - page_end;
    const uint16_t* next = ahead < 0
                               ? PageOf(t, page + kPagesAhead)
                               : PageOf(t, page_begin + ahead < page_end ? page_begin + ahead : page_begin) +
                                     t.cache.value_offset;
    Keys::template ScorePage<Source::kInCache, kRows>(
        reinterpret_cast<const typename Keys::Element*>(keys),
        reinterpret_cast<const float*>(keys + t.cache.scale_offset), queries,
        reinterpret_cast<const typename Keys::Element*>(next), t.scores + page * kKeysPerPage);
  }
  if constexpr (Keys::kScaledValues) {
    WeighBytes<kRows>(t, range, all, states);
  } else {
    WeighValues<Source, kRows>(t, range, all, states);
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

template <class Keys, class Source>
void AttendAll(const AttendTask& t) {
  EachTile(t.positions * t.group,
           [&](auto rows, int first_row) { AttendTile<Keys, Source, decltype(rows)::kCount>(t, first_row); });
}

template <class Source>
void ConvertValues(const AttendTask& t) {
  // The first query sees the oldest keys, the last one the newest.
  const int page_begin = VisibleKeys(t, t.position_begin).begin / kKeysPerPage;
  const int page_end =
      (VisibleKeys(t, t.position_begin + t.positions - 1).end + kKeysPerPage - 1) / kKeysPerPage;
  const int64_t count = static_cast<int64_t>(t.cache.value_width) * kKeysPerPage;
  for (int page = page_begin; page < page_end; ++page) {
    const typename Source::Element* values = ValuesOf<Source>(t, page);
    for (int64_t i = 0; i < count; i += kLanes)
      Store(t.converted + page * count + i, Source::Get(values + i));
  }
}

template <class Keys, class Source>
void AttendFrom(const AttendTask& t) {
  if (t.converted != nullptr) {
    ConvertValues<Source>(t);
    AttendAll<Keys, SourceF32>(t);
  } else {
    AttendAll<Keys, Source>(t);
  }
}

void Attend(const AttendTask& t) {
  switch (t.cache.format) {
    case CacheFormat::kF16:
      return AttendFrom<Keys16, SourceF16>(t);
    case CacheFormat::kBF16:
      return AttendFrom<Keys16, SourceBf16>(t);
    case CacheFormat::kQ8:
      return AttendAll<Keys8, SourceBytes>(t);
  }
}

void MergeState(const float* part, int head_dim, float* state) {
  const float maximum = part[0] > state[0] ? part[0] : state[0];
  if (maximum == -__builtin_inff()) return;
  float factors[kLanes] = {};
  factors[0] = state[0] - maximum;
  factors[1] = part[0] - maximum;
  Store(factors, Exp2(Load(factors)));
  const F32 old_factor = Set(factors[0]);
  const F32 new_factor = Set(factors[1]);
  state[0] = maximum;
  state[1] = state[1] * factors[0] + part[1] * factors[1];
  for (int d = kStateHeader; d < kStateHeader + head_dim; d += kLanes) {
    Store(state + d, Fma(Load(part + d), new_factor, Mul(Load(state + d), old_factor)));
  }
}

void FinishState(const float* state, int head_dim, float* out) {
  const F32 inverse = Set(state[1] > 0.0f ? 1.0f / state[1] : 0.0f);
  for (int d = 0; d < head_dim; d += kLanes) {
    StoreFirst(out + d, Mul(Load(state + kStateHeader + d), inverse), head_dim - d);
  }
}
