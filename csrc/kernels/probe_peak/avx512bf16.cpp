#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/probe_peak/contract.h"

namespace nf::kernels::probe_peak {
namespace {

constexpr int kChains = 16;  // latency 6, up to 2 ports: 12 needed

float bf16(std::uint64_t iterations) {
  __m512 acc[kChains];
  for (int i = 0; i < kChains; ++i) acc[i] = _mm512_set1_ps(static_cast<float>(i));
  // Products of 1 and 0: the sums stay what they were, however long the loop runs.
  const __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(1.0f), _mm512_set1_ps(1.0f));
  const __m512bh b = _mm512_cvtne2ps_pbh(_mm512_setzero_ps(), _mm512_setzero_ps());
  for (std::uint64_t n = 0; n < iterations; ++n) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) acc[i] = _mm512_dpbf16_ps(acc[i], a, b);
  }
  __m512 sum = acc[0];
  for (int i = 1; i < kChains; ++i) sum = _mm512_add_ps(sum, acc[i]);
  return _mm512_cvtss_f32(sum);
}

}  // namespace

const Loop bf16_avx512bf16 = {2.0 * 32 * kChains, bf16};

}  // namespace nf::kernels::probe_peak

#endif  // __x86_64__
