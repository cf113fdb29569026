// Attention of the query rows of one KV head over listed keys. Scores of keys are exact integer products, so
// it does not matter for the result in which form and order the elements of a key are read.

// Keys whose memory is asked for ahead of those at work.
constexpr int kGatherAhead = 24;

MNEMO_INLINE const uint16_t* PageOf(const ListedTask& t, int64_t slot) {
  return t.cache.base + slot / kKeysPerPage * t.cache.page_stride;
}

MNEMO_INLINE const uint16_t* ValueOf(const ListedTask& t, int64_t slot) {
  return PageOf(t, slot) + t.cache.value_offset + slot % kKeysPerPage * t.cache.value_width;
}

MNEMO_INLINE void PrefetchRow(const uint16_t* row, int width) {
  for (int i = 0; i < width; i += 32) __builtin_prefetch(row + i, 0, 3);
}

// Lays the keys [begin, begin + 64) of the list out as a page has them. The last key stands in for those
// beyond the end of the list.
void GatherKeys(const ListedTask& t, int begin) {
  const int even_dim = (t.head_dim + 1) / 2 * 2;
  for (int i = 0; i < kKeysPerPage; ++i) {
    const int at = begin + i < t.count ? begin + i : t.count - 1;
    const int64_t slot = t.slots[at];
    const int64_t key = slot % kKeysPerPage;
    const uint16_t* page = PageOf(t, slot);
    __builtin_memcpy(t.key_scales + i, page + t.cache.scale_offset + key * 2, sizeof(float));
    const bool rows = t.cache.row_offset != 0;
    const uint16_t* from = rows ? page + t.cache.row_offset + key * t.cache.value_width : page + key * 2;
    const int64_t step = rows ? 1 : kKeysPerPage;
    for (int d = 0; d < even_dim; d += 2)
      __builtin_memcpy(t.keys + d * kKeysPerPage + i * 2, from + d * step, 4);
  }
}

template <int kRows>
void ScoreListed(const ListedTask& t, int begin, int first_row) {
  const int even_dim = (t.head_dim + 1) / 2 * 2;
  ScorePage<false, kRows>(t.keys, t.key_scales, t.q + static_cast<int64_t>(first_row) * even_dim,
                          t.q_scales + first_row, even_dim, nullptr,
                          t.scores + static_cast<int64_t>(first_row) * kKeysPerSplit + begin);
}

// As AddValues, with the rows of values at `values`.
template <class Source, int kRows>
void AddListedValues(const typename Source::Element* const* values, int count, int64_t width,
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
      for (int j = 0; j < kVectors; ++j) v[j] = Source::Get(values[key] + d + j * kLanes);
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

template <class Source>
void AttendListedKeys(const ListedTask& t) {
  for (int begin = 0; begin < t.count; begin += kKeysPerPage) {
    GatherKeys(t, begin);
    EachTile(t.group,
             [&](auto rows, int first_row) { ScoreListed<decltype(rows)::kCount>(t, begin, first_row); });
  }
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
    EachTile(t.group, [&](auto rows, int first_row) {
      AddListedValues<Source, decltype(rows)::kCount>(
          values, count, width, t.scores + static_cast<int64_t>(first_row) * kKeysPerSplit + begin,
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
