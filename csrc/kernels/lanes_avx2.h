// float32 in AVX2 registers, for kernels/tiles_f32.h. Included by files compiled for AVX2 alone.
#pragma once

#include <immintrin.h>
#include <stddef.h>

namespace nf::kernels {
namespace {

struct LanesAvx2 {
  using Vector = __m256;
  static constexpr size_t kCount = 8;

  static inline Vector zero() { return _mm256_setzero_ps(); }
  static inline Vector load(const float* p) { return _mm256_loadu_ps(p); }
  static inline Vector plus(Vector a, Vector b) { return _mm256_add_ps(a, b); }

  // The first `left` (1 to 7) values, zeros behind them.
  static inline Vector load_tail(const float* p, size_t left) {
    alignas(32) static const int kOnesThenZeros[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
    return _mm256_maskload_ps(p, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kOnesThenZeros + kCount - left)));
  }

  // Each by the tree ((0+1)+(2+3)) + ((4+5)+(6+7)).
  static inline __m128 sum(Vector a, Vector b, Vector c, Vector d) {
    const __m256 quads = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(quads), _mm256_extractf128_ps(quads, 1));
  }
};

}  // namespace
}  // namespace nf::kernels
