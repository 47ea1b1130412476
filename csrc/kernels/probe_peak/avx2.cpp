#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/probe_peak/contract.h"

namespace nf::kernels::probe_peak {
namespace {

// 12 accumulators: 4 cycles of latency times 2 ports need 8; 12 plus two operands still fit the 16 registers.
constexpr int kChains = 12;

float f32(std::uint64_t iterations) {
  __m256 acc[kChains];
  for (int i = 0; i < kChains; ++i) acc[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 half = _mm256_set1_ps(0.5f);
  const __m256 one = _mm256_set1_ps(1.0f);
  for (std::uint64_t n = 0; n < iterations; ++n) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) acc[i] = _mm256_fmadd_ps(acc[i], half, one);
  }
  __m256 sum = acc[0];
  for (int i = 1; i < kChains; ++i) sum = _mm256_add_ps(sum, acc[i]);
  return _mm256_cvtss_f32(sum);
}

constexpr int kByteChains = 8;

float int8(std::uint64_t iterations) {
  __m256i acc[kByteChains];
  for (int i = 0; i < kByteChains; ++i) acc[i] = _mm256_set1_epi32(i);
  __m256i a = _mm256_set1_epi8(1);
  const __m256i b = _mm256_set1_epi8(2);
  const __m256i ones = _mm256_set1_epi16(1);
  for (std::uint64_t n = 0; n < iterations; ++n) {
#pragma GCC unroll 16
    for (int i = 0; i < kByteChains; ++i) {
      // The empty statement claims to change `a`: without it the products would be computed once, outside the loop.
      __asm__ volatile("" : "+x"(a));
      acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
    }
  }
  __m256i sum = acc[0];
  for (int i = 1; i < kByteChains; ++i) sum = _mm256_add_epi32(sum, acc[i]);
  return static_cast<float>(_mm256_extract_epi32(sum, 0));
}

}  // namespace

const Loop f32_avx2 = {2.0 * 8 * kChains, f32};
const Loop int8_avx2 = {2.0 * 32 * kByteChains, int8};

}  // namespace nf::kernels::probe_peak

#endif  // __x86_64__
