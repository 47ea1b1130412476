// linear_bf16: bfloat16 rows times packed bfloat16 weights, and what becomes of the sums.
//
//   y   = sum over depth of input * weight + bias[column]        products exact, sums float32 in an order fixed by the target; denormals may be zero
//   out = y or gelu(y), as float32 or rounded to bfloat16
//
// |y - exact| <= (depth + 2) 2^-24 * (sum of |input * weight| + |bias|) * 1.02; gelu off by at most 1e-5 and 2^-21 relatively on top of it. A row's result
// depends on that row alone, to the bit, on any one target.
//
// Input rows and outputs may have any alignment; weights begin on a 64-byte boundary. Nothing behind the last row's `depth` values is read.
#pragma once

#include "kernels/linear.h"

namespace nf::kernels {

struct LinearBf16Job {
  const uint16_t* input;
  size_t input_stride;  // values from row to row
  size_t rows;
  const uint16_t* weights;
  size_t depth, panels;
  const float* bias;  // 16 values for each panel
  void* out;          // float, or uint16_t for bfloat16
  size_t out_stride;  // values from row to row
};

struct LinearBf16 {
  void (*run)(const LinearBf16Job* job, LinearOut out);
  const char* (*target)();
};

extern const LinearBf16 linear_bf16_scalar;
#if defined(__x86_64__)
extern const LinearBf16 linear_bf16_avx2;
extern const LinearBf16 linear_bf16_avx512;
extern const LinearBf16 linear_bf16_amx;
#elif defined(__aarch64__)
extern const LinearBf16 linear_bf16_neon_dotprod;
#endif

}  // namespace nf::kernels
