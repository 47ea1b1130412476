// attention: what each token of one sequence takes from all of them, head by head.
//
//   s[i][j] = q_i . k_j                     the queries already hold log2(e) / sqrt(head_dim)
//   p[i][j] = 2^(s[i][j] - max_j s[i][j])
//   out_i   = sum_j p[i][j] v_j / sum_j p[i][j]
//
// `bf16`: q, k, v and out are bfloat16. Products are exact and summed in float32; p is off by at most 2^-12 relatively, then rounded to
// bfloat16 for the products with v, while its sum is taken before or after that rounding. So each out_i is off by at most
// 2^-7 * max |v| + the rounding of out itself, plus what an error of head_dim 2^-22 sum |q k| in s makes of p. p below 2^-60 may be zero.
// amx: p itself off by at most 2^-7 from its row's common factor, so out_i by at most 2^-6 * max |v|; p is 2^s without the maximum where a row's sum
// of these lies from 2^-34 to 2^62, and those of less than 2^-64 count as that. |k| < 2^118.
// `f32`: everything is float32; p off by at most 2^-20 relatively.
// A sequence's result depends on that sequence alone, to the bit, on any one target; heads may be computed in any groups.
//
// Memory: token t's row begins at qkv + t * stride; in it head h's query at h * head_dim, its key at keys + h * head_dim, its value at
// values + h * head_dim. `scratch` has scratch_bytes(tokens, head_dim) bytes on a 64-byte boundary, whatever they hold. Nothing outside the
// given heads is written, nothing outside the rows is read, and all values of a row are finite. Behind a query stand its row's keys and
// values, which may be read with it. head_dim is 1 to 256.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace nf::kernels {

template <typename Value>
struct AttentionJob {
  const Value* qkv;
  size_t stride;        // values from token to token
  size_t keys, values;  // where a row's keys and values begin
  size_t tokens, heads, head_dim;
  Value* out;
  size_t out_stride;
  void* scratch;
};

template <typename Value>
struct Attention {
  void (*run)(const AttentionJob<Value>* job);
  size_t (*scratch_bytes)(size_t tokens, size_t head_dim);
  const char* (*target)();
};

using AttentionBf16 = Attention<uint16_t>;
using AttentionF32 = Attention<float>;

extern const AttentionBf16 attention_bf16_scalar;
extern const AttentionF32 attention_f32_scalar;
#if defined(__x86_64__)
extern const AttentionBf16 attention_bf16_avx2;
extern const AttentionF32 attention_f32_avx2;
extern const AttentionF32 attention_f32_avx512;
extern const AttentionBf16 attention_bf16_avx512;
extern const AttentionBf16 attention_bf16_amx;
#elif defined(__aarch64__)
extern const AttentionBf16 attention_bf16_neon_dotprod;
extern const AttentionF32 attention_f32_neon_dotprod;
#endif

}  // namespace nf::kernels
