#pragma once

// Common definitions of all headers of the wire layout. The structs are plain C, so that C, C++, CUDA and HIP
// share one definition; SystemVerilog is checked against the same bytes (README.md). All fields are
// little-endian.

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define MNEMO_LAYOUT_BEGIN namespace mnemo::layout {
#define MNEMO_LAYOUT_END }
#define MNEMO_LAYOUT_ASSERT static_assert
#else
#define MNEMO_LAYOUT_BEGIN
#define MNEMO_LAYOUT_END
#define MNEMO_LAYOUT_ASSERT _Static_assert
#endif

// Host and device code from one source.
#if defined(__CUDACC__) || defined(__HIPCC__)
#define MNEMO_LAYOUT_FN __host__ __device__ constexpr
#else
#define MNEMO_LAYOUT_FN constexpr
#endif

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the wire layout is little-endian and is read in place"
#endif

MNEMO_LAYOUT_BEGIN

enum {
  // Major version: a peer with another one would misread data. Minor version: only additions that an older
  // peer may ignore.
  kAbiMajor = 1,
  kAbiMinor = 1,  // 1: kGroupPlainMax
  // unit of offsets and lengths of payloads and results
  kUnitBytes = 64,
};

MNEMO_LAYOUT_END
