// Attention of the query rows of one KV head over listed keys. Scores of keys are exact integer products, so
// it does not matter for the result in which form and order the elements of a key are read.

// Keys that are read together, and how many of them ahead their memory is asked for: the memory's delay is
// longer than the work on one such group.
constexpr int kKeyGroup = kLanes;
constexpr int kAhead = 2 * kKeyGroup;

MNEMO_INLINE const uint16_t* PageOf(const ListedTask& t, int64_t slot) {
  return t.cache.base + slot / kKeysPerPage * t.cache.page_stride;
}

MNEMO_INLINE const uint16_t* ValueOf(const ListedTask& t, int64_t slot) {
  return PageOf(t, slot) + t.cache.value_offset + slot % kKeysPerPage * t.cache.value_width;
}

// Whether `count` keys stand in a page one after another, from a multiple of their number.
MNEMO_INLINE bool IsRun(const int64_t* slots, int count) {
  if (slots[count - 1] - slots[0] != count - 1 || slots[0] % count != 0) return false;
  for (int i = 1; i + 1 < count; ++i) {
    if (slots[i] - slots[0] != i) return false;
  }
  return true;
}

MNEMO_INLINE bool IsRunAt(const ListedTask& t, int begin, int count) {
  return begin + count <= t.count && IsRun(t.slots + begin, count);
}

// GCC drops calls of functions that only prefetch: all of them are inlined.
//
// A cache line holds 32 of these elements.
MNEMO_INLINE void PrefetchRow(const uint16_t* row, int width) {
  for (int i = 0; i < width; i += 32) __builtin_prefetch(row + i, 0, 2);
}

MNEMO_INLINE void PrefetchValues(const ListedTask& t, int begin, int end) {
  if (end > t.count) end = t.count;
  for (int i = begin; i < end; ++i) PrefetchRow(ValueOf(t, t.slots[i]), t.cache.value_width);
}

// Asks for the keys of a group, where GatherGroup will read them.
MNEMO_INLINE void PrefetchKeys(const ListedTask& t, int begin) {
  const bool run = IsRunAt(t, begin, kKeyGroup);
  for (int i = begin; i < begin + kKeyGroup && i < t.count; ++i) {
    const int64_t slot = t.slots[i];
    const int64_t key = slot % kKeysPerPage;
    const uint16_t* page = PageOf(t, slot);
    if (!run || i == begin) __builtin_prefetch(page + t.cache.scale_offset + key * 2, 0, 2);
    if (!run && t.cache.row_offset != 0) {
      PrefetchRow(page + t.cache.row_offset + key * t.cache.value_width, t.head_dim);
    } else if (run && i == begin) {
      for (int d = 0; d < t.head_dim; d += 2) __builtin_prefetch(page + d * kKeysPerPage + key * 2, 0, 2);
    }
  }
}

// Lays the keys [begin, begin + kKeyGroup) of the list out as a page has them, from column `column` on. The
// last key stands in for those beyond the end of the list.
void GatherGroup(const ListedTask& t, int begin, int column) {
  const int even_dim = (t.head_dim + 1) / 2 * 2;
  const int16_t* rows[kKeyGroup];
  const bool in_rows = t.cache.row_offset != 0;
  for (int i = 0; i < kKeyGroup; ++i) {
    const int64_t slot = t.slots[begin + i < t.count ? begin + i : t.count - 1];
    const int64_t key = slot % kKeysPerPage;
    const uint16_t* page = PageOf(t, slot);
    __builtin_memcpy(t.key_scales + column + i, page + t.cache.scale_offset + key * 2, sizeof(float));
    rows[i] = reinterpret_cast<const int16_t*>(in_rows ? page + t.cache.row_offset + key * t.cache.value_width
                                                       : page + key * 2);
  }
  int16_t* out = t.keys + column * 2;
  constexpr int64_t kOutStride = int64_t{2} * kKeysPerPage;
  if (IsRunAt(t, begin, kKeyGroup)) {
    const auto* from =
        reinterpret_cast<const int16_t*>(PageOf(t, t.slots[begin])) + t.slots[begin] % kKeysPerPage * 2;
    for (int d = 0; d < even_dim; d += 2)
      StorePairs(out + d * kKeysPerPage, LoadPairs(from + d * kKeysPerPage));
  } else if (in_rows && even_dim >= 2 * kLanes) {
    // Where the width is no multiple, the last block covers part of the one before again.
    for (int d = 0; d < even_dim; d += 2 * kLanes) {
      const int at = d + 2 * kLanes <= even_dim ? d : even_dim - 2 * kLanes;
      const int16_t* parts[kKeyGroup];
      for (int i = 0; i < kKeyGroup; ++i) parts[i] = rows[i] + at;
      TransposePairs(parts, out + at * kKeysPerPage, kOutStride);
    }
  } else {
    const int64_t step = in_rows ? 1 : kKeysPerPage;
    for (int d = 0; d < even_dim; d += 2) {
      for (int i = 0; i < kKeyGroup; ++i) {
        __builtin_memcpy(out + d * kKeysPerPage + i * 2, rows[i] + d * step, 4);
      }
    }
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

// Scores of the keys [begin, begin + 64) of the list.
void ScoreKeys(const ListedTask& t, int begin) {
  const int16_t* keys = t.keys;
  const float* scales = t.key_scales;
  const bool whole = IsRunAt(t, begin, kKeysPerPage);
  for (int i = 0; i < kKeysPerPage && begin + i < t.count; i += kKeyGroup) {
    if (begin + i + kAhead < t.count) {
      PrefetchKeys(t, begin + i + kAhead);
    }
    if (!whole) GatherGroup(t, begin + i, i);
  }
  if (whole) {
    const uint16_t* page = PageOf(t, t.slots[begin]);
    keys = reinterpret_cast<const int16_t*>(page);
    scales = reinterpret_cast<const float*>(page + t.cache.scale_offset);
  }
  EachTile(t.group, [&](auto rows, int first_row) {
    constexpr int kRows = decltype(rows)::kCount;
    const int even_dim = (t.head_dim + 1) / 2 * 2;
    ScorePage<false, kRows>(keys, scales, t.q + static_cast<int64_t>(first_row) * even_dim,
                            t.q_scales + first_row, even_dim, nullptr,
                            t.scores + static_cast<int64_t>(first_row) * kKeysPerSplit + begin);
  });
}

// As AddValues, with the rows of values at `values`; those at `next` are asked for.
template <class Source, int kRows>
void AddListedValues(const uint16_t* const* values, const uint16_t* const* next, int count, int64_t width,
                     const float* weights, float* out, int64_t out_stride) {
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
        if (j % 2 == 0) __builtin_prefetch(next[key] + d + j * kLanes, 0, 2);
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
  for (int begin = 0; begin < kAhead; begin += kKeyGroup) PrefetchKeys(t, begin);
  for (int begin = 0; begin < t.count; begin += kKeysPerPage) ScoreKeys(t, begin);
  PrefetchValues(t, 0, kAhead);
  const int64_t width = t.cache.value_width;
  for (int r = 0; r < t.group; ++r) {
    float* state = t.states + r * t.state_stride;
    for (int64_t d = 0; d < width; d += kLanes) Store(state + kStateHeader + d, Set(0.0f));
    Softmax(t.scores + r * kKeysPerSplit, 0, t.count, &state[0], &state[1]);
  }
  for (int begin = 0; begin < t.count; begin += kKeysPerPage) {
    const int count = t.count - begin < kKeysPerPage ? t.count - begin : kKeysPerPage;
    const uint16_t* values[kKeysPerPage];
    for (int i = 0; i < count; ++i) values[i] = ValueOf(t, t.slots[begin + i]);
    const uint16_t* next[kKeysPerPage];
    for (int i = 0; i < count; ++i) {
      const int at = begin + i + kAhead;
      next[i] = ValueOf(t, t.slots[at < t.count ? at : t.count - 1]);
    }
    EachTile(t.group, [&](auto rows, int first_row) {
      AddListedValues<Source, decltype(rows)::kCount>(
          values, next, count, width, t.scores + static_cast<int64_t>(first_row) * kKeysPerSplit + begin,
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
