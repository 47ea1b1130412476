// dot_bf16: inner products of float32 queries with bfloat16 rows as they are stored.
//
// A query has two bfloat16 parts: `high`, itself rounded, and `low`, what that leaves out, rounded likewise; nothing larger than 2^-16 |q_i| is
// lost. Both are packed (codec/halves.h): for each 16 queries `pairs` times 64 bytes, each the next two dimensions of the sixteen, query by
// query; places beyond nq and dim are zero. `pairs` = dim / 2 rounded up to a multiple of 16. Rows: dim values each, one after the other,
// finite, of any alignment; nothing behind the last one is read.
//
// out[i * out_stride + j] = high_i . r_j + low_i . r_j, each sum float32 in any order, products exact, denormals (in, between, out) zero or not.
// Error bound against the float32 query: |result - q . r| <= (2^-16 + (dim + 40) 2^-24) * 1.02 * sum |q_i r_i| + dim * 2^-123 * (1 + |q| + |r|)
// for dim <= 2^13, while |q| |r| < 2^126.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace nf::kernels {

constexpr size_t kHalvesQueries = 16, kHalvesPairs = 16;

struct DotBf16 {
  void (*block)(const uint16_t* high, const uint16_t* low, size_t nq, const void* rows, size_t nr, size_t dim, float* out, size_t out_stride);
  // The target's name, from inside the file that holds the code.
  const char* (*target)();
};

extern const DotBf16 dot_bf16_scalar;
#if defined(__x86_64__)
extern const DotBf16 dot_bf16_amx;
#endif

}  // namespace nf::kernels
