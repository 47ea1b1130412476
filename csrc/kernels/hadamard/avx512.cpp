#include "kernels/hadamard/contract.h"
#include "kernels/hadamard/loops.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace nf::kernels {
namespace {

const char* target() { return "avx512"; }

constexpr size_t kLanes = 16;

// A step within a register: `swapped` holds each value's partner, `second` tells which values are the second of their pair.
inline __m512 step(__m512 y, __m512 swapped, __mmask16 second) { return _mm512_mask_sub_ps(_mm512_add_ps(y, swapped), second, swapped, y); }

void round(float* y, const float* signs, size_t count, size_t begin, size_t size) {
  multiply(y, signs, count);
  y += begin;
  wide_steps(y, size, kLanes);
  for (size_t i = 0; i < size; i += kLanes) {
    __m512 v = _mm512_loadu_ps(y + i);
    v = step(v, _mm512_shuffle_f32x4(v, v, 0x4E), 0xFF00);
    v = step(v, _mm512_shuffle_f32x4(v, v, 0xB1), 0xF0F0);
    v = step(v, _mm512_permute_ps(v, 0x4E), 0xCCCC);
    v = step(v, _mm512_permute_ps(v, 0xB1), 0xAAAA);
    _mm512_storeu_ps(y + i, v);
  }
}

}  // namespace

const Hadamard hadamard_avx512 = {round, target};

}  // namespace nf::kernels

#endif
