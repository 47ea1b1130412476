// linear_f32: float32 rows times packed float32 weights: the reference precision of the encoder.
//
//   y   = sum over depth of input * weight + bias[column]        float32 sums in an order fixed by the target, fused or not
//   out = y or gelu(y), as float32 (LinearOut::f32 and gelu_f32 alone)
//
// |y - exact| <= (depth + 2) 2^-24 * (sum of |input * weight| + |bias|) * 1.02; gelu off by at most 5e-7 (1 + |y|) on top of it. A row's
// result depends on that row alone, to the bit, on any one target.
//
// Input rows and outputs may have any alignment; weights begin on a 64-byte boundary. Nothing behind the last row's `depth` values is read.
#pragma once

#include "kernels/linear.h"

namespace nf::kernels {

struct LinearF32Job {
  const float* input;
  size_t input_stride;  // values from row to row
  size_t rows;
  const float* weights;
  size_t depth, panels;
  const float* bias;  // 16 values for each panel
  float* out;
  size_t out_stride;  // values from row to row
};

struct LinearF32 {
  void (*run)(const LinearF32Job* job, LinearOut out);
  const char* (*target)();
};

extern const LinearF32 linear_f32_scalar;
#if defined(__x86_64__)
extern const LinearF32 linear_f32_avx2;
extern const LinearF32 linear_f32_avx512;
#elif defined(__aarch64__)
extern const LinearF32 linear_f32_neon_dotprod;
#endif

}  // namespace nf::kernels
