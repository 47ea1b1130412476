// l2sqr_f32: squared Euclidean distances of float32 vectors, sum (q_i - r_i)^2.
//
// Accumulator and order as in dot_f32 (float32; one chain of W lanes in `block` and `gather`, four chains in `pair`).
// Error bound, for any order of summation: |result - exact| <= (dim + 4) * 2^-24 * exact * (1 + 2^-10) + dim * 2^-124 * (1 + |q| + |r|) for
// dim <= 2^13: all terms are non-negative, so the error is relative to the result itself. Overflow gives infinity: callers keep
// |q| + |r| < 2^63 or use float64. NaN propagates. dim = 0 gives 0. No alignment is required of any pointer.
#pragma once

#include <stddef.h>

namespace nf::kernels {

struct L2SqrF32 {
  float (*pair)(const float* q, const float* r, size_t dim);
  void (*gather)(const float* q, const float* const* rows, size_t n, size_t dim, float* out);
  void (*block)(const float* q, size_t q_stride, size_t nq, const float* r, size_t r_stride, size_t nr, size_t dim, float* out,
                size_t out_stride);
  const char* (*target)();
};

extern const L2SqrF32 l2sqr_f32_scalar;
#if defined(__x86_64__)
extern const L2SqrF32 l2sqr_f32_avx2;
extern const L2SqrF32 l2sqr_f32_avx512;
#endif

}  // namespace nf::kernels
