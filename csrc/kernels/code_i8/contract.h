// code_i8: int8 codes of float32 values, and of what they leave out.
//
// rest:  out[i] = row[i] - centre[i], held within float32; returns the largest size of a result (as integers compare, so NaN is larger than any).
// codes: out[i] = the integer nearest to rest[i] * inverse, half to even; sizes below 2^22 expected, and fewer than 128 after rounding.
// fine:  out[i] = the integer nearest to (rest[i] - scale * codes[i]) * steps, held within -127..127 first.
//
// Each value is the same few float32 operations, each rounded to nearest, on every target: all give the same bits. Any n; reads and writes
// nothing else.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace nf::kernels {

struct CodeI8 {
  float (*rest)(const float* row, const float* centre, size_t n, float* out);
  void (*codes)(const float* rest, size_t n, float inverse, int8_t* out);
  void (*fine)(const float* rest, const int8_t* codes, size_t n, float scale, float steps, int8_t* out);
  const char* (*target)();
};

extern const CodeI8 code_i8_scalar;
#if defined(__x86_64__)
extern const CodeI8 code_i8_avx2;
extern const CodeI8 code_i8_avx512;
#endif

}  // namespace nf::kernels
