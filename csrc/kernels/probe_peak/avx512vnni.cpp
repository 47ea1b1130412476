#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/probe_peak/contract.h"

namespace nf::kernels::probe_peak {
namespace {

constexpr int kChains = 16;  // latency 5, 2 ports: 10 needed

float int8(std::uint64_t iterations) {
  __m512i acc[kChains];
  for (int i = 0; i < kChains; ++i) acc[i] = _mm512_set1_epi32(i);
  const __m512i a = _mm512_set1_epi8(1);
  const __m512i b = _mm512_set1_epi8(2);
  for (std::uint64_t n = 0; n < iterations; ++n) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) acc[i] = _mm512_dpbusd_epi32(acc[i], a, b);
  }
  __m512i sum = acc[0];
  for (int i = 1; i < kChains; ++i) sum = _mm512_add_epi32(sum, acc[i]);
  return static_cast<float>(_mm512_cvtsi512_si32(sum));
}

}  // namespace

const Loop int8_avx512vnni = {2.0 * 64 * kChains, int8};

}  // namespace nf::kernels::probe_peak

#endif  // __x86_64__
