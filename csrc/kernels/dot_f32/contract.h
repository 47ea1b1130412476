// dot_f32: inner products of float32 vectors.
//
// Accumulator: float32. Every product of a pair (q, r) goes through one chain of W lanes (W = 8 scalar and avx2, 16 avx512; lane j holds
// the elements i with i mod W = j, in rising i), summed by a fixed tree at the end. avx2 and avx512 use fused multiply-add.
// So `block` and `gather` give bit-equal scores for the same pair under one target, wherever the pair stands in its block; `pair` uses
// four chains and may differ from them in the last bits. Targets differ from each other within the bound.
//
// Error bound, for any order of summation: |result - exact| <= (dim + 1) * 2^-24 * sum |q_i r_i| * (1 + 2^-10) + dim * 2^-126 for dim <= 2^13
// (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1; the last term is products lost to underflow).
// NaN and infinity propagate; overflow gives infinity or NaN: callers keep |q| |r| < 2^126 or use float64.
// dim = 0 gives 0. No alignment is required of any pointer.
#pragma once

#include <stddef.h>

namespace nf::kernels {

struct DotF32 {
  // One pair.
  float (*pair)(const float* q, const float* r, size_t dim);
  // One query against n rows given by pointers: out[i] = q . rows[i].
  void (*gather)(const float* q, const float* const* rows, size_t n, size_t dim, float* out);
  // out[i * out_stride + j] = q_i . r_j; strides in elements.
  void (*block)(const float* q, size_t q_stride, size_t nq, const float* r, size_t r_stride, size_t nr, size_t dim, float* out,
                size_t out_stride);
  // The target's name, from inside the file that holds the code.
  const char* (*target)();
};

extern const DotF32 dot_f32_scalar;
#if defined(__x86_64__)
extern const DotF32 dot_f32_avx2;
extern const DotF32 dot_f32_avx512;
#endif

}  // namespace nf::kernels
