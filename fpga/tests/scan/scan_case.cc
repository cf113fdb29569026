#include "scan_case.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "proto/layout/numerics.h"
#include "proto/layout/quantise.h"

namespace mnemo::rtl_scan {
namespace {

using layout::CardBlock;
using layout::CardBlockOf;

constexpr uint32_t kPartBases = 2;  // part_t
constexpr uint32_t kNoShift = 105;  // of a query whose y is that of octave 0

bool IsCodes(uint32_t format) { return layout::IsCodeFormat(format); }

// Element i of vector v of a block; vector 4 of means is the page's own row.
int32_t Element(std::span<const uint8_t> record, uint32_t format, uint32_t dim, uint32_t v, uint32_t i) {
  const CardBlock block = CardBlockOf(format, dim);
  const layout::RecordLayout at = layout::RecordSections(format, dim);
  const uint32_t half = i / block.dim;
  const uint32_t d = i % block.dim;
  if (d >= dim) {
    return 0;
  }
  if (IsCodes(format)) {
    return layout::CodeAt(record, format, dim, v, d);
  }
  const uint32_t row = format == layout::kFormatBounds ? v * 2 + half : v;
  return static_cast<int8_t>(record[at.rows + row * dim + d]);
}

// Bit of plane p, the top one first.
uint32_t PlaneBit(int32_t value, uint32_t format, uint32_t planes, uint32_t p) {
  if (format == layout::kFormatCodes2) {
    const uint32_t above = static_cast<uint32_t>(value + 3) / 2;
    return above >> (1 - p) & 1;
  }
  return static_cast<uint32_t>(value) >> (planes - 1 - p) & 1;
}

void SetBit(std::span<Beat> beats, uint32_t bit) {
  beats[bit / 512][bit / 8 % 64] |= static_cast<uint8_t>(1U << bit % 8);
}

std::vector<uint8_t> RandomRecord(const CaseOptions& options, std::mt19937& rng) {
  std::vector<uint8_t> record(layout::RecordBytes(options.format, options.dim));
  if (options.random_bits) {
    for (uint8_t& byte : record) byte = static_cast<uint8_t>(rng());
    // Scales near each other, so that scores differ and not all of them are limited.
    const uint8_t octave = static_cast<uint8_t>(rng() % 256);
    const layout::RecordLayout at = layout::RecordSections(options.format, options.dim);
    if (IsCodes(options.format) && rng() % 4 != 0) {
      for (uint32_t t = 0; t < 64; ++t) record[at.scales + t] = static_cast<uint8_t>(octave - rng() % 40);
      record[1] = static_cast<uint8_t>(octave >> 3);
    }
    if (rng() % 8 == 0)
      std::fill(record.begin() + 16, record.end(), static_cast<uint8_t>(0x80 + rng() % 2 * 0xFF));
    // The highest value of a part is not below the lowest: only then a bound is a plain dot product.
    for (uint32_t n = 0; options.format == layout::kFormatBounds && n < 4 * options.dim; ++n) {
      uint8_t* low = &record[at.rows + n / options.dim * 2 * options.dim + n % options.dim];
      if (static_cast<int8_t>(low[0]) > static_cast<int8_t>(low[options.dim]))
        std::swap(low[0], low[options.dim]);
    }
    return record;
  }
  std::normal_distribution<float> bell;
  std::vector<float> keys(64 * size_t{options.dim});
  const float large = rng() % 5 == 0 ? 1e4F : 1;
  const float offset = rng() % 3 == 0 ? 2.0F : 0;
  const bool equal = rng() % 16 == 0;
  for (float& key : keys) key = (rng() % 50 == 0 ? large : 1) * bell(rng) + offset;
  if (equal) std::fill(keys.begin(), keys.end(), rng() % 2 == 0 ? 0.0F : 1.0F);
  layout::MakeRecord({keys.data(), options.dim * sizeof(float), layout::kFormatF32}, options.dim,
                     options.format, record);
  return record;
}

std::vector<uint8_t> RandomQueries(const CaseOptions& options, std::mt19937& rng) {
  std::vector<uint8_t> block(layout::QueryBlockBytes(options.group, options.dim));
  if (options.random_bits) {
    for (uint32_t i = 0; i < options.group * options.dim; ++i) block[i] = static_cast<uint8_t>(rng());
    for (uint32_t q = 0; q < options.group; ++q) {
      layout::QueryParam param{};
      param.multiplier = rng() % 16 == 0 ? 0 : static_cast<uint16_t>(rng() | 0x8000);
      param.shift = static_cast<uint8_t>(rng() % 4 == 0 ? rng() : 105 + rng() % 64);
      if (options.relu) param.weight = static_cast<int16_t>(rng() % 8 == 0 ? -32768 : rng());
      if (rng() % 8 == 0) std::memset(&block[q * options.dim], rng() % 2 == 0 ? 0x80 : 0x7F, options.dim);
      std::memcpy(&block[layout::QueryParamOffset(options.group, options.dim) + q * sizeof(param)], &param,
                  sizeof(param));
    }
    return block;
  }
  std::normal_distribution<float> bell;
  std::vector<float> queries(size_t{options.group} * options.dim);
  for (float& value : queries) value = 4 * bell(rng);
  if (rng() % 8 == 0) std::fill(queries.begin(), queries.begin() + options.dim, 0.0F);
  std::vector<int16_t> weights(options.relu ? options.group : 0);
  for (int16_t& weight : weights) weight = static_cast<int16_t>(rng());
  layout::MakeQueryBlock(queries, options.group, options.dim, options.format,
                         1 / std::sqrt(static_cast<float>(options.dim)), weights, block);
  return block;
}

// The queries of a scan of values: a unit vector an element, from a random one on.
std::vector<uint8_t> UnitQueries(const CaseOptions& options, uint32_t first, uint32_t octave) {
  std::vector<uint8_t> block(layout::QueryBlockBytes(options.group, options.dim));
  const layout::QueryParam param{.multiplier = 1, .shift = static_cast<uint8_t>(kNoShift + octave)};
  for (uint32_t q = 0; q < options.group; ++q) {
    block[q * options.dim + (first + q) % options.dim] = 1;
    std::memcpy(&block[layout::QueryParamOffset(options.group, options.dim) + q * sizeof(param)], &param,
                sizeof(param));
  }
  return block;
}

// Limits all scales of a record of codes to an octave.
void LimitOctaves(const CaseOptions& options, uint32_t octave, std::span<uint8_t> record) {
  const layout::RecordLayout at = layout::RecordSections(options.format, options.dim);
  const auto limit = [&](uint8_t& scale) {
    if (uint32_t{scale} >> 3 > octave) scale = static_cast<uint8_t>(octave << 3 | (scale & 7U));
  };
  limit(record[0]);
  record[1] = 0;
  for (uint32_t t = 0; t < 64; ++t) {
    limit(record[at.scales + t]);
    record[1] = std::max<uint8_t>(record[1], record[at.scales + t] >> 3);
  }
}

// y of a scan of values, as layout::Scores has scores.
std::vector<int16_t> ValuesOf(const CaseOptions& options, std::span<const uint8_t> record, uint32_t first,
                              uint32_t octave) {
  const layout::RecordLayout at = layout::RecordSections(options.format, options.dim);
  std::vector<int16_t> values;
  for (uint32_t q = 0; q < options.group; ++q) {
    const uint32_t i = (first + q) % options.dim;
    for (uint32_t t = 0; t < 64; ++t) {
      const int32_t y =
          options.part == kPartBases
              ? layout::AlignedValue(static_cast<int8_t>(record[at.base + i]), record[0], octave)
              : layout::AlignedValue(layout::CodeAt(record, options.format, options.dim, t, i),
                                     record[at.scales + t], octave);
      values.push_back(static_cast<int16_t>(y));
    }
  }
  return values;
}

std::vector<QueryBeat> QueryBeats(const CaseOptions& options, std::span<const uint8_t> block,
                                  bool params_first) {
  const CardBlock shape = CardBlockOf(options.format, options.dim);
  std::vector<QueryBeat> codes;
  std::vector<QueryBeat> params;
  for (uint32_t q = 0; q < options.group; ++q) {
    const auto* code = reinterpret_cast<const int8_t*>(&block[q * options.dim]);
    int32_t sum = 0;
    for (uint32_t i = 0; i < options.dim; ++i) sum += code[i];
    for (uint32_t segment = 0; segment < shape.vector_elements / 64; ++segment) {
      QueryBeat beat{.query = q, .segment = segment};
      for (uint32_t i = 0; i < 64; ++i) {
        const uint32_t element = segment * 64 + i;
        const uint32_t d = element % shape.dim;
        int8_t value = d < options.dim ? code[d] : int8_t{0};
        if (options.format == layout::kFormatBounds) {
          value = element < shape.dim ? std::min<int8_t>(value, 0) : std::max<int8_t>(value, 0);
        }
        beat.data[i] = static_cast<uint8_t>(value);
      }
      codes.push_back(beat);
    }
    layout::QueryParam param;
    std::memcpy(&param, &block[layout::QueryParamOffset(options.group, options.dim) + q * sizeof(param)],
                sizeof(param));
    // query_param_t: multiplier 16 bits, shift 8, sum 17, weight 16.
    const uint64_t bits = param.multiplier | uint64_t{param.shift} << 16 |
                          (static_cast<uint64_t>(sum) & 0x1FFFF) << 24 |
                          static_cast<uint64_t>(static_cast<uint16_t>(param.weight)) << 41;
    QueryBeat beat{.is_param = true, .query = q};
    std::memcpy(beat.data.data(), &bits, sizeof(bits));
    params.push_back(beat);
  }
  std::vector<QueryBeat> beats = params_first ? params : codes;
  const std::vector<QueryBeat>& rest = params_first ? codes : params;
  beats.insert(beats.end(), rest.begin(), rest.end());
  beats.back().last = true;
  return beats;
}

uint32_t EntriesOfPage(Scan scan) {
  return scan == Scan::kCodes || scan == Scan::kSign ? 64 : scan == Scan::kParts ? 4 : 1;
}

void FillJob(const Shape& shape, const CaseOptions& options, ScanJob& job) {
  const CardBlock block = CardBlockOf(options.format, options.dim);
  const bool sign = options.scan == Scan::kSign;
  job.kind = IsCodes(options.format) ? 0 : options.format == layout::kFormatBounds ? 1 : 2;
  job.vector_log2 = static_cast<uint32_t>(std::countr_zero(block.vector_elements));
  job.planes = sign ? 1 : block.planes;
  job.two_bit = options.format == layout::kFormatCodes2;
  job.sign_stage = sign;
  job.page_row = options.scan == Scan::kPageRow;
  job.fold = options.scan == Scan::kFold;
  const int32_t code_max = sign ? 1 : IsCodes(options.format) ? layout::CodeMax(options.format) : 127;
  job.code_shift = static_cast<uint32_t>(layout::DotShift(code_max, options.dim));
  job.base_shift = static_cast<uint32_t>(layout::DotShift(127, options.dim));
  job.group_last = options.group - 1;
  job.pass_last = (options.group - 1) / shape.g;
  job.relu = options.relu;
  if (job.page_row && block.page_row != block.beats) {
    job.first_beats = 1;
    job.second_at = block.page_row;
    job.second_beats = block.beats - block.page_row;
  } else {
    job.first_beats = sign ? block.scales : block.page_row;
  }
  if (options.part == 0) return;
  job.part = options.part;
  job.code_shift = job.base_shift = 0;
  if (options.part != kPartBases) return;
  // The base lies before the scales, and a plane is read.
  job.sign_stage = true;
  job.planes = 1;
  job.first_beats = block.scales;
}

// The scores of one page, as the lane sends them.
void ExpectPage(const Shape& shape, const CaseOptions& options, std::span<const int16_t> scores,
                uint64_t mask, std::vector<ScoreBeat>& beats) {
  const uint32_t entries = EntriesOfPage(options.scan);
  const uint32_t per_beat = shape.s / shape.g;
  for (uint32_t pass = 0; pass * shape.g < options.group; ++pass) {
    for (uint32_t at = 0; at * per_beat < entries; ++at) {
      ScoreBeat beat{.page_last = (at + 1) * per_beat >= entries, .pass = pass, .at = at};
      beat.queries = std::min(shape.g, options.group - pass * shape.g);
      beat.y.resize(shape.s);
      for (uint32_t e = 0; e < per_beat && at * per_beat + e < entries; ++e) {
        const uint32_t entry = at * per_beat + e;
        beat.counts |= static_cast<uint32_t>(mask >> entry & 1) << e;
        for (uint32_t q = 0; q < beat.queries; ++q) {
          beat.y[e * shape.g + q] = scores[(pass * shape.g + q) * entries + entry];
        }
      }
      beats.push_back(beat);
    }
  }
}

// The rank codes of one page of weighted ReLU, as the lane sends them after the last pass.
void ExpectCodes(const Shape& shape, std::span<const int32_t> ranks, uint64_t mask,
                 std::vector<ScoreBeat>& beats) {
  const uint32_t per_beat = shape.s / 2;
  for (uint32_t first = 0; first < ranks.size(); first += per_beat) {
    ScoreBeat beat{.page_last = first + per_beat == ranks.size(), .at = first / per_beat, .codes = true};
    for (uint32_t e = 0; e < per_beat; ++e) {
      const bool counts = (mask >> (first + e) & 1) != 0;
      const uint32_t code = counts ? static_cast<uint32_t>(ranks[first + e]) ^ 0x80000000U : 0;
      beat.counts |= static_cast<uint32_t>(counts) << e;
      beat.y.push_back(static_cast<int16_t>(code));
      beat.y.push_back(static_cast<int16_t>(code >> 16));
    }
    beats.push_back(beat);
  }
}

}  // namespace

uint32_t Channel::Place(uint32_t count, uint32_t gap) {
  const auto at = static_cast<uint32_t>(beats.size() + gap);
  beats.resize(at + count);
  return at;
}

std::vector<Beat> BlockOf(std::span<const uint8_t> record, uint32_t format, uint32_t dim) {
  const CardBlock block = CardBlockOf(format, dim);
  std::vector<Beat> beats(block.beats, Beat{});
  const layout::RecordLayout at = layout::RecordSections(format, dim);
  std::memcpy(beats[0].data(), record.data(), sizeof(layout::RecordHeader));
  if (IsCodes(format)) {
    std::memcpy(beats[block.base].data(), &record[at.base], dim);
    std::memcpy(beats[block.scales].data(), &record[at.scales], 64);
  }
  const uint32_t vectors = format == layout::kFormatMeans && block.dim == 64 ? 5 : block.vectors;
  for (uint32_t p = 0; p < block.planes; ++p) {
    const uint32_t plane = p == 0 ? block.first : block.further + (p - 1) * block.plane_beats;
    for (uint32_t v = 0; v < vectors; ++v) {
      for (uint32_t i = 0; i < block.vector_elements; ++i) {
        if (i % block.dim < dim &&
            PlaneBit(Element(record, format, dim, v, i), format, block.planes, p) != 0) {
          SetBit(std::span(beats).subspan(plane), v * block.vector_elements + i);
        }
      }
    }
    for (uint32_t i = 0; block.page_row != block.beats && i < dim; ++i) {
      if (PlaneBit(Element(record, format, dim, 4, i), format, block.planes, p) != 0) {
        SetBit(std::span(beats).subspan(block.page_row + p), i);
      }
    }
  }
  return beats;
}

Case MakeCase(const Shape& shape, const CaseOptions& options, Channel& channel, std::mt19937& rng) {
  const CardBlock block = CardBlockOf(options.format, options.dim);
  const uint32_t entries = EntriesOfPage(options.scan);
  const uint32_t shift = rng() % shape.channels;
  Case made;
  ScanJob& job = made.job;
  FillJob(shape, options, job);

  const uint32_t total = options.pages * entries;
  uint32_t begin = options.whole ? 0 : rng() % (total + 1);
  uint32_t end = options.whole ? total : rng() % (total + 1);
  if (begin > end) std::swap(begin, end);
  job.listed = options.listed;
  job.maxima = rng() % 2 == 0;
  job.none = begin == end && !options.listed;
  job.first_page = begin / entries + shift;
  job.last_page = (end == 0 ? 0 : (end - 1) / entries) + shift;
  job.skip = begin % entries;
  job.last_entry = end == 0 ? 0 : (end - 1) % entries;
  job.block_beat = rng() % 3 * block.beats;

  // The lane's pages of the index: extents of random slots around the block.
  const uint32_t rows = (options.pages + shift + shape.channels - 1) / shape.channels;
  job.list_beat = channel.Place((rows + 15) / 16, rng() % 4);
  const bool values = options.part != 0;
  const uint32_t octave = values ? rng() % 32 : 0;
  const uint32_t element = values ? rng() % options.dim : 0;
  const std::vector<uint8_t> query =
      values ? UnitQueries(options, element, octave) : RandomQueries(options, rng);
  made.queries = QueryBeats(options, query, rng() % 2 == 0);
  const layout::Stage stage = options.scan == Scan::kSign ? layout::Stage::kSign : layout::Stage::kFull;
  const uint32_t op = IsCodes(options.format)                   ? layout::kScoreDot
                      : options.format == layout::kFormatBounds ? layout::kScorePageBound
                                                                : layout::kScoreBlockMean;
  const uint32_t flags =
      options.scan == Scan::kFold || options.scan == Scan::kPageRow ? layout::kFlagPages64 : 0;
  std::vector<uint32_t> page_entries(entries);
  for (uint32_t e = 0; e < entries; ++e) page_entries[e] = e;
  for (uint32_t row = 0; row < rows; ++row) {
    const uint32_t page = row * shape.channels + options.lane;
    uint32_t extent = 0xFFFFFFFF;  // pages that the index lacks are not read
    if (page >= shift && page < options.pages + shift) {
      std::vector<uint8_t> record = RandomRecord(options, rng);
      if (values) LimitOctaves(options, octave, record);
      const uint32_t place = channel.Place(job.block_beat + block.beats, rng() % 70);
      extent = place;
      const std::vector<Beat> beats = BlockOf(record, options.format, options.dim);
      std::copy(beats.begin(), beats.end(), channel.beats.begin() + place + job.block_beat);
      uint64_t mask = 0;
      for (uint32_t e = 0; e < entries; ++e) {
        const uint32_t entry = (page - shift) * entries + e;
        if (options.listed ? rng() % 2 == 0 : entry >= begin && entry < end) mask |= uint64_t{1} << e;
      }
      const bool scanned = options.listed ? rng() % 3 != 0 : mask != 0;
      if (scanned) {
        if (options.listed) made.list.push_back({.row = row, .mask = mask});
        const uint8_t* const column[] = {record.data()};
        const std::vector<int16_t> scores = layout::Scores({options.format, options.dim, column}, op, flags,
                                                           stage, options.group, query.data(), page_entries);
        if (options.relu) {
          const std::vector<int32_t> ranks =
              layout::Ranks(scores, options.group, layout::kGroupNone, options.dim, query.data());
          ExpectCodes(shape, ranks, mask, made.scores);
        } else if (values) {
          const size_t before = made.scores.size();
          ExpectPage(shape, options, ValuesOf(options, record, element, octave), mask, made.scores);
          for (ScoreBeat& beat : std::span(made.scores).subspan(before)) {
            beat.value = true;
            beat.page_last = beat.page_last && beat.pass == job.pass_last;
          }
          made.top_octave =
              std::max<uint32_t>({made.top_octave.value_or(0), record[1], uint32_t{record[0]} >> 3});
        } else {
          ExpectPage(shape, options, scores, mask, made.scores);
        }
        made.block_beats += job.first_beats + job.second_beats;
      }
    }
    std::memcpy(&channel.beats[job.list_beat + row / 16][row % 16 * 4], &extent, sizeof(extent));
  }
  if (made.scores.empty()) {
    made.scores.push_back({.none = true});
    if (options.listed) made.list.push_back({.none = true});
  }
  if (options.listed) made.list.back().last = true;
  made.scores.back().last = true;
  for (ScoreBeat& beat : made.scores) beat.maxima = job.maxima;
  return made;
}

std::string Describe(const CaseOptions& o) {
  return "format " + std::to_string(o.format) + " scan " + std::to_string(static_cast<int>(o.scan)) +
         " dim " + std::to_string(o.dim) + " group " + std::to_string(o.group) + " pages " +
         std::to_string(o.pages) + " lane " + std::to_string(o.lane) + " relu " + std::to_string(o.relu) +
         " part " + std::to_string(o.part) + " listed " + std::to_string(o.listed) + " random bits " +
         std::to_string(o.random_bits) + "\n";
}

CaseOptions RandomOptions(const Shape& shape, std::mt19937& rng) {
  CaseOptions options;
  options.format = layout::kFormatCodes2 + rng() % 5;
  options.dim = 16U << rng() % 5;
  if (IsCodes(options.format)) {
    options.scan = options.format == layout::kFormatCodes2 && rng() % 2 == 0 ? Scan::kSign : Scan::kCodes;
  } else {
    options.scan = rng() % 2 == 0                            ? Scan::kParts
                   : options.format == layout::kFormatBounds ? Scan::kFold
                                                             : Scan::kPageRow;
  }
  options.group = rng() % 3 == 0 ? 1 + rng() % 16 : 1 + rng() % shape.g;
  options.lane = rng() % shape.channels;
  options.pages = 1 + rng() % (IsCodes(options.format) ? 12 : 60);
  options.relu = IsCodes(options.format) && rng() % 3 == 0;
  options.listed = rng() % 4 == 0;
  options.whole = rng() % 4 == 0;
  options.random_bits = rng() % 2 == 0;
  return options;
}

}  // namespace mnemo::rtl_scan
