// scan_i8: coded queries against packed rows of 8-bit codes; only the pairs that reach their query's cut come out.
//
// Packed rows (codec/packed.h): blocks of 16 rows; a block is `groups` times 64 bytes, each the next four codes of its sixteen rows, row by
// row. Queries: rows of 4 * groups codes, `stride` codes apart, of the kind that the kernel's `code_max` names:
//   kWideCodes    16-bit codes, for targets that widen bytes before they multiply
//   kNarrowCodes  8-bit codes, for targets whose instruction takes bytes (VNNI, AMX, NEON DOTPROD), and a second row of 8-bit codes, `low`, of
//                 what the first leave out, in steps of 1 / kLowSteps of theirs: a pair that reaches `cut` by the first codes alone is tested
//                 again with both against `fine_cut`. Few pairs get there, and a tenth of them is left.
// The codes between 4 * groups and `stride` are zero, and `stride` is a multiple of kScanStride: AMX reads queries 64 bytes at a time.
//
// Accumulators: int32 modulo 2^32, exact while 4 * groups * 128 * max |query code| < 2^31, which callers see to.
// A test is float32:  factor * (scale[row] * value) + slack * error[row] + add[row] >= cut,  value = product (+ low product / kLowSteps),  in
// any association and with or without fused operations: at most eight roundings, so its left side is off by at most 2^-20 times the sum of
// the three terms' magnitudes (underflow aside), and callers lower the cuts by that. Everything is finite but the cuts, which may be
// -infinity: then every row comes out.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace nf::kernels {

constexpr size_t kScanBlockRows = 16, kScanGroupDims = 4;
constexpr size_t kScanStride = 64;
constexpr int kWideCodes = 32767, kNarrowCodes = 127;
// Half a step of the first codes is kNarrowCodes steps of the second.
constexpr float kLowSteps = 2 * kNarrowCodes;

struct ScanI8Query {
  float factor, slack, cut;
  float fine_cut;              // narrow codes only, as are the sums of the codes
  int32_t code_sum, low_sum;
  const float* add;  // one value for each row
};

struct ScanI8Queries {
  const int16_t* wide;
  const int8_t *narrow, *low;
  size_t stride;
  size_t count;
  const ScanI8Query* each;
};

struct ScanI8Rows {
  const int8_t* codes;
  size_t blocks, groups;
  const float* scale;  // 16 values for each block, as in `error`
  const float* error;
  const int8_t* ahead = nullptr;  // what the next call will read: a kernel that outruns memory asks for it meanwhile
  size_t ahead_bytes = 0;
};

struct ScanI8Hit {
  uint32_t query, row;
  int32_t product, low;  // `low` is 0 for wide codes
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
