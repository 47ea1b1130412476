// The encoder's float32 arithmetic in AVX2 registers, for encoder_loops.h. Included by files compiled for AVX2 alone.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

namespace nf::kernels {
namespace {

struct EncoderAvx2 {
  using F = __m256;
  using Pairs = __m256i;
  static constexpr size_t kCount = 8;

  static inline F zero() { return _mm256_setzero_ps(); }
  static inline F set(float value) { return _mm256_set1_ps(value); }
  static inline F load(const float* p) { return _mm256_loadu_ps(p); }
  static inline void store(float* p, F v) { _mm256_storeu_ps(p, v); }
  static inline F add(F a, F b) { return _mm256_add_ps(a, b); }
  static inline F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static inline F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static inline F div(F a, F b) { return _mm256_div_ps(a, b); }
  static inline F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static inline F min(F a, F b) { return _mm256_min_ps(a, b); }
  static inline F max(F a, F b) { return _mm256_max_ps(a, b); }
  static inline F magnitude(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
  static inline F nearest(F a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static inline F power(F whole) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127)), 23));
  }
  static inline F where_below(F x, F limit, F a, F b) { return _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, limit, _CMP_LT_OQ)); }
  static inline F first(F v, size_t left) {
    alignas(32) static const int kOnesThenZeros[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
    return _mm256_and_ps(v, _mm256_loadu_ps(reinterpret_cast<const float*>(kOnesThenZeros + kCount - left)));
  }

  static inline F widen(const uint16_t* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16));
  }
  static inline void narrow(F v, uint16_t* p) {
    const __m256i bits = _mm256_castps_si256(v), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i halves = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd), 16);
    const __m128i packed = _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packus_epi32(halves, halves), 0xD8));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), packed);
  }
  static inline Pairs pairs(const uint16_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static inline Pairs spread_pair(const uint16_t* p) {
    int two;
    __builtin_memcpy(&two, p, sizeof(two));
    return _mm256_set1_epi32(two);
  }
  static inline F low(Pairs p) { return _mm256_castsi256_ps(_mm256_slli_epi32(p, 16)); }
  static inline F high(Pairs p) { return _mm256_castsi256_ps(_mm256_and_si256(p, _mm256_set1_epi32(static_cast<int>(0xFFFF0000u)))); }

  static inline void codes(F v, uint8_t* p) {
    const __m256i whole = _mm256_cvtps_epi32(v);
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(whole, whole), 0xD8);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_castsi256_si128(words)));
  }

  static inline float sum(F v) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  static inline float least(F v) { return -most(_mm256_xor_ps(v, _mm256_set1_ps(-0.0f))); }
  static inline float most(F v) {
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }
};

}  // namespace
}  // namespace nf::kernels
