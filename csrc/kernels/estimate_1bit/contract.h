// estimate_1bit: estimated distances of 32 rows from the sums of table entries that their sign bits choose.
//
// Codes and tables are those of scan_1bit (kernels/scan_1bit/contract.h), one block of 32 rows and one query, but entries are small: at most
// kEstimateEntryMax, so that vector targets add kEstimateRun of them as bytes. `groups` is a multiple of 4.
//
// Accumulator: 16 bits, exact while the largest entries of all groups add up to less than 2^16, which callers see to. Then, in float32, in this
// order and without fused operations,  out[i] = base + (add[i] + factor[i] * (step * sum_i + shift)),  where `add` and `factor` are bfloat16:
// all targets give the same bits. Returns a mask of the rows with out[i] < limit; NaN is never below it.
//
// tables: the entries for values y, four to a group:  the entry of pattern p is  0.5 + x_0 + x_1 + x_2 + x_3  without its fraction, where x_j is
// |scale * y_j| if bit j of p is the sign of y_j (set: not negative) and 0 if it is not, added from the left in float32. scale * sum |y_j| is
// below 255.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/scan_1bit/contract.h"

namespace nf::kernels {

constexpr unsigned kEstimateEntryMax = 31;
constexpr size_t kEstimateRun = 255 / kEstimateEntryMax;

struct Estimate1BitQuery {
  const uint8_t* tables;
  size_t groups;
  float step, shift;
};

struct Estimate1BitRows {
  const uint8_t* codes;
  const uint16_t* add;  // 32 values, as in `factor`
  const uint16_t* factor;
  const unsigned char* ahead = nullptr;  // memory of so many bytes that another call needs soon, or null: fetched while this one computes
  size_t ahead_bytes = 0;
};

struct Estimate1Bit {
  uint32_t (*block)(const Estimate1BitQuery* query, const Estimate1BitRows* rows, float base, float limit, float* out);
  void (*tables)(const float* values, size_t groups, float scale, uint8_t* out);
  const char* (*target)();
};

extern const Estimate1Bit estimate_1bit_scalar;
#if defined(__x86_64__)
extern const Estimate1Bit estimate_1bit_avx2;
extern const Estimate1Bit estimate_1bit_avx512;
#endif

}  // namespace nf::kernels
