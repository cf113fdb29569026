#pragma once

// The contract of host and FPGA card: registers, index table, page lists and resident blocks. The
// descriptors, completions and rings are those of the wire (descriptor.h, completion.h, ring.h). This layout
// has a hash of its own (card_hash.h), which a register tells; the wire's hash does not depend on it.
//
// Addresses. The card has two memories. *Card memory* is HBM: `channels` channels of equal size; the scan
// reads nothing else. *Host memory* is what the command processor reads and writes: rings, index table,
// tokens, payloads, results. A beat is 64 bytes, the width of every memory port.
//
// Pages. Page n of an index with shift s lies in channel (n + s) mod channels, in row (n + s) / channels of
// that channel's page list. So the rows of all channels, read side by side, hold the pages in order.

#include "proto/layout/abi.h"
#include "proto/layout/descriptor.h"
#include "proto/layout/record.h"

MNEMO_LAYOUT_BEGIN

enum {
  kCardMagic = 0x444D4E4D,  // "MNMD"
  kCardMajor = 1,
  kCardMinor = 0,
  kCardBeatBytes = 64,
  kCardQueues = 8,
  kCardMaxChannels = 32,     // a power of two
  kCardMinDim = 64,          // rows of smaller dims are padded with zeros to it
  kCardMaxDim = 256,         // head dim of an index
  kCardListRowsOfBeat = 16,  // u32 of a page list's beat
  kCardMaxRegions = 2,       // of a queue
};

// One index, written by the host: 64 bytes at index_table + 64 * index_id of a queue.
typedef struct CardIndex {
  uint16_t generation;
  uint8_t exists;         // 1: there is such an index
  uint8_t record_format;  // Format, 1 to 5
  uint16_t layer_slots;
  uint16_t heads;
  uint16_t dim;
  uint8_t shift;      // s above, below `channels`
  uint8_t kv_format;  // of K and V in host memory; 0: none
  uint32_t max_tokens;
  uint32_t list_beat;       // page list: beats from the base of every channel
  uint32_t block_beats;     // CardBlockOf(record_format, dim).beats
  uint64_t tokens_address;  // host memory: u32 tokens[layer_slots], aligned to 64 bytes
  uint8_t reserved[32];
} CardIndex;

#define MNEMO_CARD_INDEX_FIELDS(X) \
  X(uint16_t, generation, 0)       \
  X(uint8_t, exists, 2)            \
  X(uint8_t, record_format, 3)     \
  X(uint16_t, layer_slots, 4)      \
  X(uint16_t, heads, 6)            \
  X(uint16_t, dim, 8)              \
  X(uint8_t, shift, 10)            \
  X(uint8_t, kv_format, 11)        \
  X(uint32_t, max_tokens, 12)      \
  X(uint32_t, list_beat, 16)       \
  X(uint32_t, block_beats, 20)     \
  X(uint64_t, tokens_address, 24)

#define MNEMO_CHECK_FIELD(type, name, at)                                                                 \
  MNEMO_LAYOUT_ASSERT(offsetof(CardIndex, name) == (at) && sizeof(((CardIndex*)0)->name) == sizeof(type), \
                      #name);
MNEMO_CARD_INDEX_FIELDS(MNEMO_CHECK_FIELD)
#undef MNEMO_CHECK_FIELD
MNEMO_LAYOUT_ASSERT(sizeof(CardIndex) == 64, "one beat");

// Registers of 32 bits, by byte offset. A pair of 64 bits has its low half first.
enum CardRegister {
  // Interrupts, where XRT's kernels have them. The line is up while Global is 1 and Status is not 0.
  kCardRegInterruptGlobal = 0x004,
  kCardRegInterruptEnable = 0x008,  // CardInterrupt: which are raised
  kCardRegInterruptStatus = 0x00C,  // CardInterrupt: raised; a written 1 clears its bit
  // Read only.
  kCardRegMagic = 0x010,       // kCardMagic
  kCardRegVersion = 0x014,     // kCardMajor << 16 | kCardMinor
  kCardRegCardHash = 0x018,    // pair: kCardHash
  kCardRegLayoutHash = 0x020,  // pair: kLayoutHash
  kCardRegShape = 0x028,       // channels | queries of a pass (G) << 8 | scores a cycle (S) << 16
  kCardRegBankWords = 0x02C,   // words of a score bank of a lane; a word holds 8 entries of G queries
  kCardRegScoreOps = 0x030,    // masks by bit: ScoreOp | GroupOp << 8 | SelectOp << 16 | cascade << 24
  kCardRegFormats = 0x034,     // mask of record formats
  kCardRegDims = 0x038,        // mask: bit n: head dim 2^n
  kCardRegMaxGroup = 0x03C,    // queries of a group | largest k << 16
  // Control. Reset drops all work and returns every register but the read-only ones to 0.
  kCardRegControl = 0x040,   // CardControl
  kCardRegState = 0x044,     // CardState, read only
  kCardRegWatchdog = 0x048,  // cycles that a job may take; 0: no bound
  kCardRegFailure = 0x04C,   // CardFailure, read only, until reset
  kCardRegPeriod = 0x050,    // nanoseconds of 256 cycles, for the times in completions
  // Written: asks for one interrupt, as soon as the head of queue 0's completions is beyond the value (u32
  // arithmetic), or the card has failed. What happened before the write counts, so no wake-up is lost.
  kCardRegAwait = 0x054,
  // Channels: pairs of registers of each, 8 bytes apart. A port writes them before its first use; whoever
  // resets the card writes them back.
  kCardRegChannels = 0x100,  // base of the channel in beats, then its length in beats
  // Counters, pairs, read only, 8 bytes apart in the order of CardCounter.
  kCardRegCounters = 0x200,
  // Queues: kCardQueueBytes apart, in the order of CardQueueRegister.
  kCardRegQueues = 0x400,
  kCardQueueBytes = 0x80,
  // Counters of a channel, pairs: kCardLaneBytes apart, in the order of CardLaneCounter.
  kCardRegLanes = 0x800,
  kCardLaneBytes = 0x40,
  kCardRegisterBytes = 0x1000,
};

enum CardControl {
  kCardControlRun = 1,      // takes descriptors
  kCardControlQuiesce = 2,  // takes no more; what is under way ends
  kCardControlReset = 4,  // written 1: drops all work, answers nothing; reads 1 until no transaction is open
};

enum CardState {
  kCardStateIdle = 1,      // nothing is under way
  kCardStateQuiesced = 2,  // quiesce was asked for, and nothing is under way
  kCardStateFailed = 4,    // see kCardRegFailure; takes nothing until reset
};

enum CardFailure {
  kCardFailureNone = 0,
  kCardFailureWatchdog = 1,  // a job took more than kCardRegWatchdog cycles
  kCardFailureChannel = 2,   // an error response of a channel; bits 8 to 15: which
  kCardFailureHost = 3,      // an error response of host memory
  kCardFailureExtent = 4,    // a page list names beats outside of its channel; bits 8 to 15: which
};

enum CardInterrupt {
  kCardInterruptCompletion = 1,
  kCardInterruptFailure = 2,
};

// Byte offsets in a queue's registers.
enum CardQueueRegister {
  kCardQueueEnable = 0x00,       // CardQueueBit; the others but Head do not change while it is 1
  kCardQueueHead = 0x04,         // doorbell: the ring's head (ring.h), free-running
  kCardQueueRing = 0x08,         // pair: host address of the descriptors' RingHeader
  kCardQueueCompletions = 0x10,  // pair: host address of the completions' RingHeader
  kCardQueueSlots = 0x18,        // slots of each ring, a power of two; slot 0 is right behind the header
  kCardQueuePoll = 0x1C,         // 1: the head is read from the ring's header, not from kCardQueueHead
  kCardQueueRegion0 = 0x20,      // pair: host address of region 0
  kCardQueueRegion1 = 0x28,      // pair: host address of region 1
  kCardQueueLength0 = 0x30,      // of region 0, in units of kUnitBytes
  kCardQueueLength1 = 0x34,      // of region 1
  kCardQueueRegions = 0x38,      // number of regions, 1 or 2 | epoch << 16
  kCardQueueSeq = 0x3C,          // of the first descriptor
  kCardQueueTable = 0x40,        // pair: host address of the index table
  kCardQueueIndexes = 0x48,      // index ids are below it
  kCardQueueOps = 0x4C,          // masks as in AttachHello, as granted
  kCardQueueFormats = 0x50,
  kCardQueueScoreOps = 0x54,  // ScoreOp | GroupOp << 8 | SelectOp << 16 | cascade << 24
  kCardQueueMaxGroup = 0x58,  // max_group | max_queries << 16
  kCardQueueMaxK = 0x5C,
};

// Bits of kCardQueueEnable. A queue that becomes enabled begins where its rings' headers say: at the tail of
// the descriptors and at the head of the completions.
enum CardQueueBit {
  kCardQueueEnabled = 1,
  kCardQueueStopped = 2,  // read only: the head is more than `slots` from the tail; until it is disabled
};

// Numbers of counters, each 64 bits.
enum CardCounter {
  kCardCyclesTotal = 0,  // since reset
  kCardCyclesBusy = 1,   // with a job under way
  kCardDescriptors = 2,  // taken
  kCardRefused = 3,      // answered with another status than kStatusOk
  kCardJobs = 4,         // positions times heads, stages of a cascade each
  kCardHostBytesRead = 5,
  kCardHostBytesWritten = 6,
  kCardStallResults = 7,  // cycles in which ids wait for host memory
  kCardQueueDepth = 8,    // descriptors known and not yet taken, now
  kCardCounters = 9,
};

enum CardLaneCounter {
  kCardLaneBeats = 0,         // read from the channel
  kCardLaneStallMemory = 1,   // cycles with a job and without a beat of it
  kCardLaneStallTables = 2,   // cycles in which beats wait for tables of queries
  kCardLaneStallScorers = 3,  // cycles in which beats wait for scorers
  kCardLaneStallBank = 4,     // cycles in which scores wait for a bank
  kCardLaneBusy = 5,          // cycles with a job that has, if it reads listed pages, its list
  kCardLaneCounters = 6,
};

// The names of each enum above, for the hash (card_hash.h) and the printed package (card_package.h). A test
// compares these lists with the enums.
#define MNEMO_CARD_CONSTANTS(X) \
  X(kCardMagic)                 \
  X(kCardMajor)                 \
  X(kCardMinor)                 \
  X(kCardBeatBytes)             \
  X(kCardQueues)                \
  X(kCardMaxChannels)           \
  X(kCardMinDim)                \
  X(kCardMaxDim)                \
  X(kCardListRowsOfBeat)        \
  X(kCardMaxRegions)

#define MNEMO_CARD_REGISTERS(X) \
  X(kCardRegInterruptGlobal)    \
  X(kCardRegInterruptEnable)    \
  X(kCardRegInterruptStatus)    \
  X(kCardRegMagic)              \
  X(kCardRegVersion)            \
  X(kCardRegCardHash)           \
  X(kCardRegLayoutHash)         \
  X(kCardRegShape)              \
  X(kCardRegBankWords)          \
  X(kCardRegScoreOps)           \
  X(kCardRegFormats)            \
  X(kCardRegDims)               \
  X(kCardRegMaxGroup)           \
  X(kCardRegControl)            \
  X(kCardRegState)              \
  X(kCardRegWatchdog)           \
  X(kCardRegFailure)            \
  X(kCardRegPeriod)             \
  X(kCardRegAwait)              \
  X(kCardRegChannels)           \
  X(kCardRegCounters)           \
  X(kCardRegQueues)             \
  X(kCardQueueBytes)            \
  X(kCardRegLanes)              \
  X(kCardLaneBytes)             \
  X(kCardRegisterBytes)

#define MNEMO_CARD_CONTROLS(X) \
  X(kCardControlRun)           \
  X(kCardControlQuiesce)       \
  X(kCardControlReset)

#define MNEMO_CARD_STATES(X) \
  X(kCardStateIdle)          \
  X(kCardStateQuiesced)      \
  X(kCardStateFailed)

#define MNEMO_CARD_FAILURES(X) \
  X(kCardFailureNone)          \
  X(kCardFailureWatchdog)      \
  X(kCardFailureChannel)       \
  X(kCardFailureHost)          \
  X(kCardFailureExtent)

#define MNEMO_CARD_INTERRUPTS(X) \
  X(kCardInterruptCompletion)    \
  X(kCardInterruptFailure)

#define MNEMO_CARD_QUEUE_REGISTERS(X) \
  X(kCardQueueEnable)                 \
  X(kCardQueueHead)                   \
  X(kCardQueueRing)                   \
  X(kCardQueueCompletions)            \
  X(kCardQueueSlots)                  \
  X(kCardQueuePoll)                   \
  X(kCardQueueRegion0)                \
  X(kCardQueueRegion1)                \
  X(kCardQueueLength0)                \
  X(kCardQueueLength1)                \
  X(kCardQueueRegions)                \
  X(kCardQueueSeq)                    \
  X(kCardQueueTable)                  \
  X(kCardQueueIndexes)                \
  X(kCardQueueOps)                    \
  X(kCardQueueFormats)                \
  X(kCardQueueScoreOps)               \
  X(kCardQueueMaxGroup)               \
  X(kCardQueueMaxK)

#define MNEMO_CARD_QUEUE_BITS(X) \
  X(kCardQueueEnabled)           \
  X(kCardQueueStopped)

#define MNEMO_CARD_COUNTERS(X) \
  X(kCardCyclesTotal)          \
  X(kCardCyclesBusy)           \
  X(kCardDescriptors)          \
  X(kCardRefused)              \
  X(kCardJobs)                 \
  X(kCardHostBytesRead)        \
  X(kCardHostBytesWritten)     \
  X(kCardStallResults)         \
  X(kCardQueueDepth)           \
  X(kCardCounters)

#define MNEMO_CARD_LANE_COUNTERS(X) \
  X(kCardLaneBeats)                 \
  X(kCardLaneStallMemory)           \
  X(kCardLaneStallTables)           \
  X(kCardLaneStallScorers)          \
  X(kCardLaneStallBank)             \
  X(kCardLaneBusy)                  \
  X(kCardLaneCounters)

#ifdef __cplusplus

// A resident block: one page, slot and head, in beats. Offsets are in beats.
//
//   header   RecordHeader, zeros to 64 bytes
//   base     code formats: int8[dim], padded with zeros to a beat
//   first    the first plane
//   scales   code formats: u8[64]
//   further  the other planes, from the top bit down
//   page_row kFormatMeans with dims from 128 on: the planes of the page's own row, one beat each
//
// A plane holds one bit of each element of `vectors` vectors: element i of vector v is bit
// v * vector_elements + i, bit 0 the lowest of byte 0. Vectors are the 64 tokens; the 4 parts of a page for
// kFormatBounds (elements: dim lowest, then dim highest) and kFormatMeans. With dim 64, the page's own row
// of kFormatMeans is vector 4 of the same planes. Planes go from the top bit of the two's complement down.
// kFormatCodes2: first 1 where the code is positive, then 1 where sign and magnitude bit are equal;
// code = 2 * (2 * first + second) - 3.
struct CardBlock {
  uint32_t dim = 0;              // padded to kCardMinDim
  uint32_t vector_elements = 0;  // dim, bounds: 2 * dim
  uint32_t vectors = 0;          // 64 or 4
  uint32_t planes = 0;           // bits of an element
  uint32_t plane_beats = 0;
  uint32_t base = 0;  // beats, as the others; equal to `first` when there is none
  uint32_t first = 0;
  uint32_t scales = 0;
  uint32_t further = 0;
  uint32_t page_row = 0;  // equal to `beats` when there is none
  uint32_t beats = 0;
};

// dim: a head dim from kMinDim to kCardMaxDim.
MNEMO_LAYOUT_FN CardBlock CardBlockOf(uint32_t format, uint32_t dim) {
  CardBlock block;
  const bool codes = IsCodeFormat(format);
  block.dim = dim < kCardMinDim ? static_cast<uint32_t>(kCardMinDim) : dim;
  block.vector_elements = format == kFormatBounds ? 2 * block.dim : block.dim;
  block.vectors = codes ? static_cast<uint32_t>(kPageTokens) : static_cast<uint32_t>(kPageParts);
  block.planes = codes ? CodeBits(format) : 8;
  const uint32_t bits = kCardBeatBytes * 8;
  block.plane_beats = (block.vectors * block.vector_elements + bits - 1) / bits;
  block.base = 1;
  block.first = block.base + (codes ? block.dim / kCardBeatBytes : 0);
  block.scales = block.first + block.plane_beats;
  block.further = block.scales + (codes ? 1 : 0);
  block.page_row = block.further + (block.planes - 1) * block.plane_beats;
  block.beats = block.page_row + (format == kFormatMeans && block.dim > kCardMinDim ? block.planes : 0);
  return block;
}

static_assert(CardBlockOf(kFormatCodes2, 64).beats == 19 && CardBlockOf(kFormatCodes8, 128).beats == 132);
static_assert(CardBlockOf(kFormatBounds, 256).beats == 33 && CardBlockOf(kFormatMeans, 64).beats == 9);
static_assert(CardBlockOf(kFormatMeans, 128).beats == 17 && CardBlockOf(kFormatMeans, 256).beats == 25);

#endif

MNEMO_LAYOUT_END
