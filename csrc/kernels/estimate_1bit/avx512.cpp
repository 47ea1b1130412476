#include "kernels/estimate_1bit/contract.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace nf::kernels {
namespace {

const char* target() { return "avx512"; }

constexpr size_t kStep = sizeof(__m512i);  // four groups at once
constexpr size_t kLine = 64;

// 16-bit sums of the rows at even and at odd places of a register of byte sums; its four lanes hold different groups.
struct Wide {
  __m512i even = _mm512_setzero_si512(), odd = _mm512_setzero_si512();

  inline void add(__m512i bytes) {
    even = _mm512_add_epi16(even, _mm512_and_si512(bytes, _mm512_set1_epi16(255)));
    odd = _mm512_add_epi16(odd, _mm512_srli_epi16(bytes, 8));
  }
  static inline __m128i lanes(__m512i v) {
    const __m256i half = _mm256_add_epi16(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
    return _mm_add_epi16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  }
  // The sums of the sixteen rows in their order.
  inline __m512i sums() const {
    const __m128i a = lanes(even), b = lanes(odd);
    return _mm512_cvtepu16_epi32(_mm256_set_m128i(_mm_unpackhi_epi16(a, b), _mm_unpacklo_epi16(a, b)));
  }
};

inline __m512 from_bf16(const uint16_t* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
}

inline uint32_t finish(const Estimate1BitQuery* query, const Estimate1BitRows* rows, size_t i, __m512i sums, float base, float limit, float* out) {
  const __m512 product = _mm512_add_ps(_mm512_mul_ps(_mm512_set1_ps(query->step), _mm512_cvtepi32_ps(sums)), _mm512_set1_ps(query->shift));
  const __m512 rest = _mm512_add_ps(from_bf16(rows->add + i), _mm512_mul_ps(from_bf16(rows->factor + i), product));
  const __m512 value = _mm512_add_ps(_mm512_set1_ps(base), rest);
  _mm512_storeu_ps(out + i, value);
  return static_cast<uint32_t>(_mm512_cmp_ps_mask(value, _mm512_set1_ps(limit), _CMP_LT_OQ)) << i;
}

uint32_t block(const Estimate1BitQuery* query, const Estimate1BitRows* rows, float base, float limit, float* out) {
  const __m512i nibble = _mm512_set1_epi8(15);
  const size_t bytes = query->groups * kSignGroupBytes;
  Wide low, high;
  // Two lines for each four groups: 35 of them at 384 dimensions are asked for well before the end.
  const unsigned char *ahead = rows->ahead, *const ahead_end = ahead != nullptr ? ahead + rows->ahead_bytes : ahead;
  for (size_t at = 0; at < bytes;) {
    const size_t run = at + kEstimateRun * kStep;
    const size_t end = run < bytes ? run : bytes;
    __m512i low_bytes = _mm512_setzero_si512(), high_bytes = _mm512_setzero_si512();
    for (; at < end; at += kStep) {
      if (ahead < ahead_end) {
        _mm_prefetch(reinterpret_cast<const char*>(ahead), _MM_HINT_T0);
        _mm_prefetch(reinterpret_cast<const char*>(ahead + kLine), _MM_HINT_T0);
        ahead += 2 * kLine;
      }
      const __m512i codes = _mm512_loadu_si512(rows->codes + at), table = _mm512_loadu_si512(query->tables + at);
      low_bytes = _mm512_add_epi8(low_bytes, _mm512_shuffle_epi8(table, _mm512_and_si512(codes, nibble)));
      high_bytes = _mm512_add_epi8(high_bytes, _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(codes, 4), nibble)));
    }
    low.add(low_bytes);
    high.add(high_bytes);
  }
  for (; ahead < ahead_end; ahead += kLine) _mm_prefetch(reinterpret_cast<const char*>(ahead), _MM_HINT_T0);
  return finish(query, rows, 0, low.sums(), base, limit, out) | finish(query, rows, kSignGroupBytes, high.sums(), base, limit, out);
}

void tables(const float* values, size_t groups, float scale, uint8_t* out) {
  // Sign bits that turn a value round where the pattern's bit is not set.
  const __m512i pattern = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  __m512i turn[kSignGroupDims];
  for (size_t j = 0; j < kSignGroupDims; ++j) {
    const __m512i bit = _mm512_slli_epi32(_mm512_srl_epi32(pattern, _mm_cvtsi32_si128(static_cast<int>(j))), 31);
    turn[j] = _mm512_xor_si512(bit, _mm512_set1_epi32(static_cast<int>(0x80000000u)));
  }
  for (size_t g = 0; g < groups; ++g, values += kSignGroupDims, out += kSignGroupBytes) {
    __m512 sum = _mm512_set1_ps(0.5f);
    for (size_t j = 0; j < kSignGroupDims; ++j) {
      const __m512i turned = _mm512_xor_si512(_mm512_castps_si512(_mm512_set1_ps(scale * values[j])), turn[j]);
      sum = _mm512_add_ps(sum, _mm512_max_ps(_mm512_castsi512_ps(turned), _mm512_setzero_ps()));
    }
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(sum)));
  }
}

}  // namespace

const Estimate1Bit estimate_1bit_avx512 = {block, tables, target};

}  // namespace nf::kernels

#endif
