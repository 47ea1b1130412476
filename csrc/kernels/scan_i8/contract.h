// scan_i8: coded queries against packed rows of 8-bit codes; only the pairs that reach their query's cut come out.
//
// Packed rows (codec/packed.h): blocks of 16 rows; a block is `groups` times 64 bytes, each the next four codes of its sixteen rows, row by
// row. Queries: one row of 4 * groups codes each, `stride` codes apart. How wide query codes are is the target's choice, its `code_max` says
// it: 16 bits where rows are widened for the multiplication anyway, 8 bits where the instruction takes bytes (VNNI, AMX, NEON DOTPROD). The
// codes between 4 * groups and `stride` are zero, and `stride` is a multiple of kScanStride: AMX reads queries 64 bytes at a time.
//
// Accumulator: int32 modulo 2^32, exact while 4 * groups * 128 * max |query code| < 2^31, which callers see to. All targets that take the same
// query codes give the same product.
// The test of a pair is float32:  factor * (scale[row] * product) + slack * error[row] + add[row] >= cut,  in any association and with or
// without fused operations: at most five roundings, so its left side is off by at most 2^-21 times the sum of the three terms' magnitudes
// (underflow aside), and callers lower `cut` by that. Everything is finite but `cut`, which may be -infinity: then every row comes out.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace nf::kernels {

constexpr size_t kScanBlockRows = 16;
constexpr size_t kScanStride = 64;
constexpr int kWideCodes = 32767, kNarrowCodes = 127;

struct ScanI8Query {
  float factor, slack, cut;
  int32_t code_sum;  // of the query's codes
  const float* add;  // one value for each row
};

struct ScanI8Queries {
  const int16_t* wide;   // for a kernel whose code_max is kWideCodes
  const int8_t* narrow;  // for one whose code_max is kNarrowCodes
  size_t stride;         // from one query to the next, in codes
  size_t count;
  const ScanI8Query* each;
};

struct ScanI8Rows {
  const int8_t* codes;
  size_t blocks, groups;
  const float* scale;  // 16 values for each block, as in `error`
  const float* error;
};

struct ScanI8Hit {
  uint32_t query, row;
  int32_t product;
};

struct ScanI8 {
  // Returns how many hits were written, in no particular order; `hits` has room for every pair.
  size_t (*scan)(const ScanI8Queries* queries, const ScanI8Rows* rows, ScanI8Hit* hits);
  const char* (*target)();
  int code_max;
};

extern const ScanI8 scan_i8_scalar;
#if defined(__x86_64__)
extern const ScanI8 scan_i8_avx2;
extern const ScanI8 scan_i8_avxvnni;
extern const ScanI8 scan_i8_avx512;
extern const ScanI8 scan_i8_avx512vnni;
extern const ScanI8 scan_i8_amx;
#elif defined(__aarch64__)
extern const ScanI8 scan_i8_neon_dotprod;
#endif

}  // namespace nf::kernels
