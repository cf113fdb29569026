#include "proto/layout/card_package.h"

#include <stdint.h>

#include <algorithm>
#include <bit>
#include <cctype>
#include <cstdio>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "proto/layout/card.h"
#include "proto/layout/card_hash.h"
#include "proto/layout/completion.h"
#include "proto/layout/descriptor.h"
#include "proto/layout/layout_hash.h"
#include "proto/layout/numerics.h"
#include "proto/layout/payload.h"
#include "proto/layout/record.h"
#include "proto/layout/ring.h"

namespace mnemo::layout {
namespace {

struct Number {
  std::string_view name;
  int64_t value;
};

struct Field {
  std::string_view name;
  size_t element_bits;
  size_t elements;
  bool is_signed;
  size_t at;  // bytes
};

template <typename T>
constexpr size_t kElements = std::is_array_v<T> ? std::extent_v<T> : 1;

#define MNEMO_NUMBER(name) \
  Number { #name, static_cast < int64_t>(name) }
#define MNEMO_LISTED(name) MNEMO_NUMBER(name),
#define MNEMO_FIELD(type, name, offset) Field{#name, sizeof(type) * 8, 1, std::is_signed_v<type>, offset},
#define MNEMO_MEMBER(owner, name)                                                                        \
  Field {                                                                                                \
#name, sizeof(std::remove_extent_t <decltype(owner::name)>) * 8, kElements < decltype(owner::name)>, \
        std::is_signed_v < std::remove_extent_t < decltype(owner::name)>>, offsetof(owner, name)         \
  }

constexpr Number kCardConstants[] = {MNEMO_CARD_CONSTANTS(MNEMO_LISTED)};
constexpr Number kRegisters[] = {MNEMO_CARD_REGISTERS(MNEMO_LISTED)};
constexpr Number kControls[] = {MNEMO_CARD_CONTROLS(MNEMO_LISTED)};
constexpr Number kStates[] = {MNEMO_CARD_STATES(MNEMO_LISTED)};
constexpr Number kFailures[] = {MNEMO_CARD_FAILURES(MNEMO_LISTED)};
constexpr Number kInterrupts[] = {MNEMO_CARD_INTERRUPTS(MNEMO_LISTED)};
constexpr Number kQueueRegisters[] = {MNEMO_CARD_QUEUE_REGISTERS(MNEMO_LISTED)};
constexpr Number kQueueBits[] = {MNEMO_CARD_QUEUE_BITS(MNEMO_LISTED)};
constexpr Number kCounters[] = {MNEMO_CARD_COUNTERS(MNEMO_LISTED)};
constexpr Number kLaneCounters[] = {MNEMO_CARD_LANE_COUNTERS(MNEMO_LISTED)};

constexpr Number kWireConstants[] = {MNEMO_NUMBER(kUnitBytes),  MNEMO_NUMBER(kPageTokens),
                                     MNEMO_NUMBER(kPartTokens), MNEMO_NUMBER(kPageParts),
                                     MNEMO_NUMBER(kMinDim),     MNEMO_NUMBER(kMaxDim),
                                     MNEMO_NUMBER(kMaxGroup),   MNEMO_NUMBER(kScaleBias),
                                     MNEMO_NUMBER(kRankBins),   MNEMO_NUMBER(kReluRankShift)};
constexpr Number kRanks[] = {MNEMO_NUMBER(kRankFloor), MNEMO_NUMBER(kPlainRankFloor)};
constexpr Number kOps[] = {
    MNEMO_NUMBER(kOpCreate),      MNEMO_NUMBER(kOpAppend), MNEMO_NUMBER(kOpFork),
    MNEMO_NUMBER(kOpTruncate),    MNEMO_NUMBER(kOpFree),   MNEMO_NUMBER(kOpKvStore),
    MNEMO_NUMBER(kOpScoreSelect), MNEMO_NUMBER(kOpGather), MNEMO_NUMBER(kOpScoreGather)};
constexpr Number kScoreOps[] = {MNEMO_NUMBER(kScoreDot), MNEMO_NUMBER(kScoreReluDot),
                                MNEMO_NUMBER(kScorePageBound), MNEMO_NUMBER(kScoreBlockMean)};
constexpr Number kGroupOps[] = {MNEMO_NUMBER(kGroupNone), MNEMO_NUMBER(kGroupMax),
                                MNEMO_NUMBER(kGroupExp2Sum), MNEMO_NUMBER(kGroupPlainMax)};
constexpr Number kSelectOps[] = {MNEMO_NUMBER(kSelectTopK), MNEMO_NUMBER(kSelectThreshold),
                                 MNEMO_NUMBER(kSelectWeightedSum), MNEMO_NUMBER(kSelectLatest)};
constexpr Number kFormats[] = {MNEMO_NUMBER(kFormatCodes2),     MNEMO_NUMBER(kFormatCodes4),
                               MNEMO_NUMBER(kFormatCodes8),     MNEMO_NUMBER(kFormatBounds),
                               MNEMO_NUMBER(kFormatMeans),      MNEMO_NUMBER(kFormatF16),
                               MNEMO_NUMBER(kFormatBf16),       MNEMO_NUMBER(kFormatF32),
                               MNEMO_NUMBER(kFormatScaledKeys), MNEMO_NUMBER(kFormatScaledBytes)};
constexpr Number kFlags[] = {MNEMO_NUMBER(kFlagByRank), MNEMO_NUMBER(kFlagRanks), MNEMO_NUMBER(kFlagPages64),
                             MNEMO_NUMBER(kFlagsKnown)};
constexpr Number kStatuses[] = {
    MNEMO_NUMBER(kStatusOk),          MNEMO_NUMBER(kStatusBadField),     MNEMO_NUMBER(kStatusBadSequence),
    MNEMO_NUMBER(kStatusStaleEpoch),  MNEMO_NUMBER(kStatusUnknownIndex), MNEMO_NUMBER(kStatusStaleGeneration),
    MNEMO_NUMBER(kStatusUnsupported), MNEMO_NUMBER(kStatusBadRegion),    MNEMO_NUMBER(kStatusBadPayload),
    MNEMO_NUMBER(kStatusFull),        MNEMO_NUMBER(kStatusDraining),     MNEMO_NUMBER(kStatusDeviceFailed),
    MNEMO_NUMBER(kNoDetail)};
constexpr Number kWords[] = {MNEMO_NUMBER(kEnergyUnknown), MNEMO_NUMBER(kResultCut)};

constexpr Field kDescriptorFields[] = {MNEMO_DESCRIPTOR_FIELDS(MNEMO_FIELD)};
constexpr Field kCompletionFields[] = {MNEMO_COMPLETION_FIELDS(MNEMO_FIELD)};
constexpr Field kIndexFields[] = {MNEMO_CARD_INDEX_FIELDS(MNEMO_FIELD)};
constexpr Field kRingFields[] = {MNEMO_RING_FIELDS(MNEMO_FIELD)};
constexpr Field kQueryParamFields[] = {MNEMO_MEMBER(QueryParam, multiplier), MNEMO_MEMBER(QueryParam, shift),
                                       MNEMO_MEMBER(QueryParam, weight)};
constexpr Field kResultFields[] = {MNEMO_MEMBER(ResultHeader, count), MNEMO_MEMBER(ResultHeader, candidates),
                                   MNEMO_MEMBER(ResultHeader, last_rank), MNEMO_MEMBER(ResultHeader, flags)};
constexpr Field kRecordFields[] = {
    MNEMO_MEMBER(RecordHeader, base_scale), MNEMO_MEMBER(RecordHeader, top_octave),
    MNEMO_MEMBER(RecordHeader, sign_scale), MNEMO_MEMBER(RecordHeader, format),
    MNEMO_MEMBER(RecordHeader, dim_log2),   MNEMO_MEMBER(RecordHeader, row_scales)};

// kCardRegMagic -> CARD_REG_MAGIC; a field's name in capitals.
std::string Upper(std::string_view name) {
  if (name.size() > 1 && name[0] == 'k' && std::isupper(static_cast<unsigned char>(name[1])) != 0) {
    name.remove_prefix(1);
  }
  std::string upper;
  for (const char c : name) {
    const auto letter = static_cast<unsigned char>(c);
    if (std::isupper(letter) != 0 && !upper.empty() && upper.back() != '_') {
      upper += '_';
    }
    upper += static_cast<char>(std::toupper(letter));
  }
  return upper;
}

// The name of a field in SystemVerilog, where `begin` and `end` are reserved.
std::string FieldName(std::string_view name) {
  return std::string(name) + (name == "begin" || name == "end" ? "_token" : "");
}

std::string Hex(uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%016llX", static_cast<unsigned long long>(value));
  return text;
}

class Printer {
 public:
  void Line(std::string_view line) { (text_ += line) += '\n'; }

  void Section(std::string_view title) {
    Line("");
    Line("  // " + std::string(title));
  }

  // Constants of `bits` bits; signed ones may be negative.
  void Numbers(std::span<const Number> numbers, int bits, bool is_signed = false) {
    for (const Number& number : numbers) {
      const std::string type =
          "logic " + std::string(is_signed ? "signed " : "") + Range(static_cast<size_t>(bits));
      const std::string literal = std::to_string(bits) + "'" + (is_signed ? "s" : "") + "d" +
                                  std::to_string(number.value < 0 ? -number.value : number.value);
      Constant(type, Upper(number.name), (number.value < 0 ? "-" : "") + literal);
    }
  }

  void Integers(std::span<const Number> numbers) {
    for (const Number& number : numbers) {
      Constant("int unsigned", Upper(number.name), std::to_string(number.value));
    }
  }

  void Constant(std::string_view type, std::string_view name, std::string_view value) {
    Line("  localparam " + std::string(type) + " " + std::string(name) + " = " + std::string(value) + ";");
  }

  // A packed struct of `bytes` bytes, the first field in the lowest bits; gaps become reserved fields.
  void Struct(std::string_view name, std::span<const Field> fields, size_t bytes) {
    std::vector<std::string> lines;
    size_t at = 0;
    const auto fill = [&](size_t end) {
      if (at < end) {
        lines.push_back("    logic " + Range((end - at) * 8) + " reserved_" + std::to_string(at) + ";");
      }
    };
    for (const Field& field : fields) {
      fill(field.at);
      const std::string array = field.elements == 1 ? "" : Range(field.elements);
      lines.push_back("    logic " + std::string(field.is_signed ? "signed " : "") + array +
                      Range(field.element_bits) + " " + FieldName(field.name) + ";");
      at = field.at + field.elements * field.element_bits / 8;
    }
    fill(bytes);
    Line("");
    Line("  typedef struct packed {");
    for (auto line = lines.rbegin(); line != lines.rend(); ++line) {
      Line(*line);
    }
    Line("  } " + std::string(name) + ";");
  }

  // Byte offsets of fields, as PREFIX_AT_FIELD.
  void Offsets(std::string_view prefix, std::span<const Field> fields) {
    for (const Field& field : fields) {
      Constant("logic " + Range(16), std::string(prefix) + "_AT_" + Upper(FieldName(field.name)),
               "16'd" + std::to_string(field.at));
    }
  }

  std::string Take() { return std::move(text_); }

 private:
  static std::string Range(size_t bits) { return "[" + std::to_string(bits - 1) + ":0]"; }

  std::string text_;
};

constexpr char kIntroduction[] =
    R"(// Made by build/release/tools/print_card_package from proto/layout; a test checks that it is current.
//
// Structs have their first field in the lowest bits, so the bits of a beat cast to them. Offsets of fields are
// bytes; those of registers are bytes of the card's AXI-Lite port.
/* verilator lint_off UNUSEDPARAM */  // a package offers more than one design needs
package mnemo_pkg;
)";

void PrintStructs(Printer& out) {
  out.Section("Structs of the wire and of the index table.");
  out.Struct("descriptor_t", kDescriptorFields, sizeof(Descriptor));
  out.Struct("completion_t", kCompletionFields, sizeof(Completion));
  out.Struct("card_index_t", kIndexFields, sizeof(CardIndex));
  out.Struct("query_param_wire_t", kQueryParamFields, sizeof(QueryParam));
  out.Struct("result_header_t", kResultFields, sizeof(ResultHeader));
  out.Struct("record_header_t", kRecordFields, sizeof(RecordHeader));
  out.Section("Byte offsets of fields: details of refused descriptors, places in rings.");
  out.Offsets("DESCRIPTOR", kDescriptorFields);
  out.Offsets("COMPLETION", kCompletionFields);
  out.Offsets("RING", kRingFields);
  out.Constant("int unsigned", "RING_HEADER_BYTES", std::to_string(sizeof(RingHeader)));
}

// CardBlockOf as a function of the record format and log2 of the head dim.
void PrintBlocks(Printer& out) {
  out.Section("A resident block (CardBlockOf of card.h), in beats; `dim` is padded.");
  out.Line("  typedef struct packed {");
  for (const char* name : {"beats", "page_row", "further", "scales", "first", "base", "plane_beats", "planes",
                           "vectors", "vector_elements", "dim"}) {
    out.Line(std::string("    logic [9:0] ") + name + ";");
  }
  out.Line("  } card_block_t;");
  out.Line("");
  out.Line(
      "  function automatic card_block_t card_block(input logic [7:0] format, input logic [3:0] dim_log2);");
  out.Line("    unique case ({format, dim_log2})");
  for (const Number& format : std::span(kFormats).first(5)) {
    for (uint32_t dim = kMinDim; dim <= kCardMaxDim; dim *= 2) {
      const CardBlock block = CardBlockOf(static_cast<uint32_t>(format.value), dim);
      std::string line = "      {8'd" + std::to_string(format.value) + ", 4'd" +
                         std::to_string(std::bit_width(dim) - 1) + "}: return card_block_t'{";
      const char* comma = "";
      for (const uint32_t number :
           {block.beats, block.page_row, block.further, block.scales, block.first, block.base,
            block.plane_beats, block.planes, block.vectors, block.vector_elements, block.dim}) {
        line += comma + std::string("10'd") + std::to_string(number);
        comma = ", ";
      }
      out.Line(line + "};");
    }
  }
  out.Line("      default: return card_block_t'('0);");
  out.Line("    endcase");
  out.Line("  endfunction");
}

}  // namespace

std::string CardPackage() {
  Printer out;
  out.Line(std::string_view(kIntroduction).substr(0, sizeof(kIntroduction) - 2));
  out.Section("Hashes of this layout (card_hash.h) and of the wire's (layout_hash.h).");
  out.Constant("logic [63:0]", "CARD_HASH", "64'h" + Hex(kCardHash));
  out.Constant("logic [63:0]", "LAYOUT_HASH", "64'h" + Hex(kLayoutHash));
  out.Section("Constants of card.h.");
  out.Integers(kCardConstants);
  out.Section("Registers, byte offsets.");
  out.Numbers(kRegisters, 13);
  out.Section("Bits of the registers Control and State; numbers of Failure; bits of interrupts.");
  out.Numbers(kControls, 32);
  out.Numbers(kStates, 32);
  out.Numbers(kFailures, 8);
  out.Numbers(kInterrupts, 32);
  out.Section("Registers of a queue, byte offsets within the queue.");
  out.Numbers(kQueueRegisters, 7);
  out.Numbers(kQueueBits, 32);
  out.Section("Counters, in the order of their registers.");
  out.Integers(kCounters);
  out.Integers(kLaneCounters);
  out.Section("Constants of the wire.");
  out.Integers(kWireConstants);
  out.Numbers(kRanks, 16, true);
  std::string mantissas;
  for (uint32_t i = 8; i-- > 0;) {
    mantissas += (mantissas.empty() ? "8'd" : ", 8'd") + std::to_string(ScaleMantissa(i));
  }
  out.Constant("logic [7:0][7:0]", "SCALE_MANTISSA", "{" + mantissas + "}");
  out.Section("Operations.");
  for (const std::span<const Number> numbers :
       {std::span<const Number>(kOps), std::span<const Number>(kScoreOps), std::span<const Number>(kGroupOps),
        std::span<const Number>(kSelectOps)}) {
    out.Numbers(numbers, 8);
  }
  out.Section("Formats and flags of descriptors.");
  out.Numbers(kFormats, 8);
  out.Numbers(kFlags, 8);
  out.Section("Statuses of completions.");
  out.Numbers(kStatuses, 16);
  out.Numbers(kWords, 32);
  PrintStructs(out);
  PrintBlocks(out);
  out.Line("");
  out.Line("endpackage");
  out.Line("/* verilator lint_on UNUSEDPARAM */");
  return out.Take();
}

}  // namespace mnemo::layout
