// linear_i8: rows of 8-bit codes times packed int8 weights, and what becomes of the sums.
//
//   acc = sum over depth of input code (0 to 255) * weight code (-127 to 127), int32, exact (depth <= 65,536)
//   y   = acc * (input_scale[row] * column_scale[column]) + (input_low[row] * column_sum[column] + bias[column])       in float32
//   out = y or gelu(y), as float32 or rounded to bfloat16
//
// An input code says low + scale * code, so what the lows contribute is the column's sum of weights, `column_sum`, times the row's low. Seven
// roundings at most, fused or not: |y - exact| <= 2^-21 (|acc scale scale| + |low sum| + |bias|). gelu: off by at most 1e-5 and 2^-20 relatively;
// bfloat16, float16: rounded to nearest on top of it. A row's result depends on that row alone, to the bit, on any one target.
//
// Input rows and outputs may have any alignment; weights begin on a 64-byte boundary. Nothing behind the last row's `depth` codes is read.
#pragma once

#include "kernels/linear.h"

namespace nf::kernels {

struct LinearI8Job {
  const uint8_t* input;
  size_t input_stride;  // bytes from row to row
  const float* input_scale;
  const float* input_low;
  size_t rows;
  const int8_t* weights;
  size_t depth, panels;
  const float* column_scale;  // 16 values for each panel, as in the next two
  const float* column_sum;
  const float* bias;
  void* out;          // float, or uint16_t for bfloat16 and float16
  size_t out_stride;  // values from row to row
};

struct LinearI8 {
  void (*run)(const LinearI8Job* job, LinearOut out);
  void (*run_f16)(const LinearI8Job* job);  // y as float16, infinite from 65,520 on; null: this target has none
  const char* (*target)();
};

extern const LinearI8 linear_i8_scalar;
#if defined(__x86_64__)
extern const LinearI8 linear_i8_avx2;
extern const LinearI8 linear_i8_avxvnni;
extern const LinearI8 linear_i8_avx512vnni;
extern const LinearI8 linear_i8_amx;
#elif defined(__aarch64__)
extern const LinearI8 linear_i8_neon_dotprod;
#endif

}  // namespace nf::kernels
