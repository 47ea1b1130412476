#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/probe_peak/contract.h"

namespace nf::kernels::probe_peak {
namespace {

constexpr int kChains = 12;  // latency 5, 2 ports: 10 needed

float int8(std::uint64_t iterations) {
  __m256i acc[kChains];
  for (int i = 0; i < kChains; ++i) acc[i] = _mm256_set1_epi32(i);
  const __m256i a = _mm256_set1_epi8(1);
  const __m256i b = _mm256_set1_epi8(2);
  for (std::uint64_t n = 0; n < iterations; ++n) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) acc[i] = _mm256_dpbusd_avx_epi32(acc[i], a, b);
  }
  __m256i sum = acc[0];
  for (int i = 1; i < kChains; ++i) sum = _mm256_add_epi32(sum, acc[i]);
  return static_cast<float>(_mm256_extract_epi32(sum, 0));
}

}  // namespace

const Loop int8_avxvnni = {2.0 * 32 * kChains, int8};

}  // namespace nf::kernels::probe_peak

#endif  // __x86_64__
