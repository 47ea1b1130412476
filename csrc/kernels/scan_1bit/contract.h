// scan_1bit: sums of table entries chosen by the sign bits of rows; only the pairs whose estimate can reach the query's cut come out.
//
// Rows: blocks of 32; a block is `groups` times 16 bytes, one group of four dimensions each. Byte r of a group holds the four sign bits of
// row r in its low half and those of row r + 16 in its high half; bit i is dimension 4 * group + i. Queries: 16 bytes for each group, the
// entry for each of the sixteen patterns of four signs. `groups` is a multiple of 4.
//
// Accumulator: 16 bits, exact while the largest entries of all groups add up to less than 2^16, which callers see to. All targets give the
// same sums. The test of a pair is float32:  factor[row] * (step * sum + shift) + slack * error[row] + add[row] >= cut,  in any
// association and with or without fused operations: at most six roundings, so its left side is off by at most 2^-21 times
// |factor| * (|step * sum| + |shift|) + |slack * error| + |add| (underflow aside), and callers lower `cut` by that. Everything is finite but
// `cut`, which may be -infinity: then every row comes out.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace nf::kernels {

constexpr size_t kSignBlockRows = 32, kSignGroupDims = 4, kSignGroupBytes = 16;
// Groups that a vector target takes at once: one 64-byte register.
constexpr size_t kSignGroupUnit = 4;

struct Scan1BitQuery {
  const uint8_t* tables;
  float step, shift, slack, cut;
  const float* add;  // one value for each row
};

struct Scan1BitRows {
  const uint8_t* codes;
  size_t blocks, groups;
  const float* factor;  // 32 values for each block, as in `error`
  const float* error;
};

struct Scan1BitHit {
  uint32_t query, row, sum;
};

struct Scan1Bit {
  // Returns how many hits were written, in no particular order; `hits` has room for every pair.
  size_t (*scan)(const Scan1BitQuery* queries, size_t nq, const Scan1BitRows* rows, Scan1BitHit* hits);
  const char* (*target)();
};

extern const Scan1Bit scan_1bit_scalar;
#if defined(__x86_64__)
extern const Scan1Bit scan_1bit_avx2;
extern const Scan1Bit scan_1bit_avx512;
#endif

}  // namespace nf::kernels
