// float32 in AVX-512 registers, for kernels/tiles_f32.h. Included by files compiled for AVX-512 alone.
#pragma once

#include <immintrin.h>
#include <stddef.h>

namespace nf::kernels {
namespace {

struct LanesAvx512 {
  using Vector = __m512;
  static constexpr size_t kCount = 16;

  static inline Vector zero() { return _mm512_setzero_ps(); }
  static inline Vector load(const float* p) { return _mm512_loadu_ps(p); }
  static inline Vector plus(Vector a, Vector b) { return _mm512_add_ps(a, b); }

  // The first `left` (1 to 15) values, zeros behind them.
  static inline Vector load_tail(const float* p, size_t left) { return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << left) - 1u), p); }

  // Each: lane j with lane j + 8 first, then the tree ((0+1)+(2+3)) + ((4+5)+(6+7)).
  static inline __m128 sum(Vector a, Vector b, Vector c, Vector d) {
    const __m256 quads = _mm256_hadd_ps(_mm256_hadd_ps(fold(a), fold(b)), _mm256_hadd_ps(fold(c), fold(d)));
    return _mm_add_ps(_mm256_castps256_ps128(quads), _mm256_extractf128_ps(quads, 1));
  }

 private:
  static inline __m256 fold(Vector v) { return _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)); }
};

}  // namespace
}  // namespace nf::kernels
