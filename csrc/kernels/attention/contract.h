// attention: what each token of one sequence takes from all of them, head by head.
//
//   s[i][j] = q_i . k_j                     the queries already hold log2(e) / sqrt(head_dim)
//   p[i][j] = 2^(s[i][j] - max_j s[i][j])
//   out_i   = sum_j p[i][j] v_j / sum_j p[i][j]
//
// `bf16`: q, k, v and out are bfloat16. Products are exact and summed in float32; p is off by at most 2^-12 relatively, then rounded to
// bfloat16 for the products with v, while its sum is taken before or after that rounding. So each out_i is off by at most
// 2^-7 * max |v| + the rounding of out itself, plus what an error of head_dim 2^-22 sum |q k| in s makes of p. p below 2^-60 may be zero.
// `f32`: everything is float32; p off by at most 2^-20 relatively.
// A sequence's result depends on that sequence alone, to the bit, on any one target; heads may be computed in any groups.
//
// Memory: token t's row begins at qkv + t * stride; in it head h's query at h * head_dim, its key at keys + h * head_dim, its value at
// values + h * head_dim. `scratch` has scratch_bytes(tokens, head_dim) bytes on a 64-byte boundary, whatever they hold. Nothing outside the
// given heads is written, nothing outside the rows is read, and all values of a row are finite. head_dim is 1 to 256.
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

struct Attention {
  void (*bf16)(const AttentionJob<uint16_t>* job);
  void (*f32)(const AttentionJob<float>* job);
  size_t (*scratch_bytes)(size_t tokens, size_t head_dim);  // enough for both
  const char* (*target)();
};

extern const Attention attention_scalar;
#if defined(__x86_64__)
extern const Attention attention_avx512;
extern const Attention attention_amx;
#endif

}  // namespace nf::kernels
