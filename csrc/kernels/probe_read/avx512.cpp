#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/probe_read/contract.h"

namespace nf::kernels::probe_read {

std::uint64_t read_avx512(const void* data, std::size_t bytes) {
  const auto* at = static_cast<const char*>(data);
  const auto* end = at + bytes;
  __m512i acc[8];
  for (auto& a : acc) a = _mm512_setzero_si512();
  for (; at != end; at += kBlock) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) acc[j] = _mm512_xor_si512(acc[j], _mm512_load_si512(at + 64 * j));
  }
  for (int j = 1; j < 8; ++j) acc[0] = _mm512_xor_si512(acc[0], acc[j]);
  alignas(64) std::uint64_t lanes[8];
  _mm512_store_si512(lanes, acc[0]);
  std::uint64_t sum = 0;
  for (const std::uint64_t lane : lanes) sum ^= lane;
  return sum;
}

}  // namespace nf::kernels::probe_read

#endif  // __x86_64__
