// scan_i8: queries of 16-bit codes against packed rows of 8-bit codes; only the pairs that reach their query's cut come out.
//
// Packed rows (codec/packed.h): blocks of 16 rows; a block is `groups` times 64 bytes, each the next four codes of its sixteen rows, row by
// row. Queries: 4 * groups codes each.
//
// Accumulator: int32, exact while 4 * groups * 128 * max |query code| < 2^31, which callers see to. All targets give the same product.
// The test of a pair is float32:  factor * (scale[row] * product) + slack * error[row] + add[row] >= cut,  in any association and with or
// without fused operations: at most five roundings, so its left side is off by at most 2^-21 times the sum of the three terms' magnitudes
// (underflow aside), and callers lower `cut` by that. Everything is finite but `cut`, which may be -infinity: then every row comes out.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace nf::kernels {

constexpr size_t kScanBlockRows = 16, kScanGroupDims = 4;

struct ScanI8Query {
  const int16_t* codes;
  float factor, slack, cut;
  const float* add;  // one value for each row
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
  size_t (*scan)(const ScanI8Query* queries, size_t nq, const ScanI8Rows* rows, ScanI8Hit* hits);
  const char* (*target)();
};

extern const ScanI8 scan_i8_scalar;
#if defined(__x86_64__)
extern const ScanI8 scan_i8_avx2;
extern const ScanI8 scan_i8_avx512;
#endif

}  // namespace nf::kernels
