#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/probe_peak/contract.h"

namespace nf::kernels::probe_peak {
namespace {

constexpr int kChains = 16;  // latency 4, 2 ports: 8 needed; 16 also covers a third chain per port

float f32(std::uint64_t iterations) {
  __m512 acc[kChains];
  for (int i = 0; i < kChains; ++i) acc[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 half = _mm512_set1_ps(0.5f);
  const __m512 one = _mm512_set1_ps(1.0f);
  for (std::uint64_t n = 0; n < iterations; ++n) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) acc[i] = _mm512_fmadd_ps(acc[i], half, one);
  }
  __m512 sum = acc[0];
  for (int i = 1; i < kChains; ++i) sum = _mm512_add_ps(sum, acc[i]);
  return _mm512_cvtss_f32(sum);
}

}  // namespace

const Loop f32_avx512 = {2.0 * 16 * kChains, f32};

}  // namespace nf::kernels::probe_peak

#endif  // __x86_64__
