// linear_i8: rows of 8-bit codes times packed int8 weights, and what becomes of the sums.
//
//   acc = sum over depth of input code (0 to 255) * weight code (-127 to 127), int32, exact (depth <= 65,536)
//   y   = (acc - offset[column]) * (input_scale[row] * column_scale[column]) + bias[column]       in float32
//   out = y or gelu(y), as float32 or rounded to bfloat16
//
// The difference is an exact int32; then at most four roundings, in this association, so |y - exact| <= 2^-22 (|exact - bias| + |exact|).
// gelu: off by at most 1e-5 from exact, and 2^-21 relatively; bfloat16: rounded to nearest on top of it. A row's result depends on that row alone, to the bit, on any one
// target. Inputs of symmetric codes have 128 added, and `offset` is 128 times the column's sum of codes.
//
// Input rows and outputs may have any alignment; weights begin on a 64-byte boundary. Nothing behind the last row's `depth` codes is read.
#pragma once

#include "kernels/linear.h"

namespace nf::kernels {

struct LinearI8Job {
  const uint8_t* input;
  size_t input_stride;  // bytes from row to row
  const float* input_scale;
  size_t rows;
  const int8_t* weights;
  size_t depth, panels;
  const float* column_scale;  // 16 values for each panel, as in the next two
  const float* bias;
  const int32_t* offset;
  void* out;          // float, or uint16_t for bfloat16
  size_t out_stride;  // values from row to row
};

struct LinearI8 {
  void (*run)(const LinearI8Job* job, LinearOut out);
  const char* (*target)();
};

extern const LinearI8 linear_i8_scalar;
#if defined(__x86_64__)
extern const LinearI8 linear_i8_avx512vnni;
extern const LinearI8 linear_i8_amx;
#endif

}  // namespace nf::kernels
