#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/probe_read/contract.h"

namespace nf::kernels::probe_read {

std::uint64_t read_avx2(const void* data, std::size_t bytes) {
  const auto* at = static_cast<const __m256i*>(data);
  const auto* end = at + bytes / 32;
  __m256i acc[8];
  for (auto& a : acc) a = _mm256_setzero_si256();
  for (; at != end; at += 8) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) acc[j] = _mm256_xor_si256(acc[j], _mm256_load_si256(at + j));
  }
  for (int j = 1; j < 8; ++j) acc[0] = _mm256_xor_si256(acc[0], acc[j]);
  alignas(32) std::uint64_t lanes[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), acc[0]);
  return lanes[0] ^ lanes[1] ^ lanes[2] ^ lanes[3];
}

}  // namespace nf::kernels::probe_read

#endif  // __x86_64__
