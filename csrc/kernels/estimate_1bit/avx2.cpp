#include "kernels/estimate_1bit/contract.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace nf::kernels {
namespace {

const char* target() { return "avx2"; }

constexpr size_t kStep = sizeof(__m256i);  // two groups at once
constexpr size_t kLine = 64;

inline __m256i load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

// 16-bit sums of the rows at even and at odd places of a register of byte sums; the lanes' halves hold different groups.
struct Wide {
  __m256i even = _mm256_setzero_si256(), odd = _mm256_setzero_si256();

  inline void add(__m256i bytes) {
    even = _mm256_add_epi16(even, _mm256_and_si256(bytes, _mm256_set1_epi16(255)));
    odd = _mm256_add_epi16(odd, _mm256_srli_epi16(bytes, 8));
  }
  static inline __m128i halves(__m256i v) { return _mm_add_epi16(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)); }
  inline void store(uint16_t* out) const {
    const __m128i a = halves(even), b = halves(odd);
    _mm_store_si128(reinterpret_cast<__m128i*>(out), _mm_unpacklo_epi16(a, b));
    _mm_store_si128(reinterpret_cast<__m128i*>(out + 8), _mm_unpackhi_epi16(a, b));
  }
};

inline __m256i eight(const uint16_t* p) { return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline __m256 from_bf16(const uint16_t* p) { return _mm256_castsi256_ps(_mm256_slli_epi32(eight(p), 16)); }

uint32_t block(const Estimate1BitQuery* query, const Estimate1BitRows* rows, float base, float limit, float* out) {
  const __m256i nibble = _mm256_set1_epi8(15);
  const size_t bytes = query->groups * kSignGroupBytes;
  Wide low, high;
  // A line for each two groups: most of a block's is asked for before the end.
  const unsigned char *ahead = rows->ahead, *const ahead_end = ahead != nullptr ? ahead + rows->ahead_bytes : ahead;
  for (size_t at = 0; at < bytes;) {
    const size_t run = at + kEstimateRun * kStep;
    const size_t end = run < bytes ? run : bytes;
    __m256i low_bytes = _mm256_setzero_si256(), high_bytes = _mm256_setzero_si256();
    for (; at < end; at += kStep) {
      if (ahead < ahead_end) {
        _mm_prefetch(reinterpret_cast<const char*>(ahead), _MM_HINT_T0);
        ahead += kLine;
      }
      const __m256i codes = load(rows->codes + at), table = load(query->tables + at);
      low_bytes = _mm256_add_epi8(low_bytes, _mm256_shuffle_epi8(table, _mm256_and_si256(codes, nibble)));
      high_bytes = _mm256_add_epi8(high_bytes, _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(codes, 4), nibble)));
    }
    low.add(low_bytes);
    high.add(high_bytes);
  }
  for (; ahead < ahead_end; ahead += kLine) _mm_prefetch(reinterpret_cast<const char*>(ahead), _MM_HINT_T0);
  alignas(32) uint16_t sums[kSignBlockRows];
  low.store(sums);
  high.store(sums + kSignGroupBytes);
  uint32_t below = 0;
  for (size_t i = 0; i < kSignBlockRows; i += 8) {
    const __m256 sum = _mm256_cvtepi32_ps(eight(sums + i));
    const __m256 product = _mm256_add_ps(_mm256_mul_ps(_mm256_set1_ps(query->step), sum), _mm256_set1_ps(query->shift));
    const __m256 rest = _mm256_add_ps(from_bf16(rows->add + i), _mm256_mul_ps(from_bf16(rows->factor + i), product));
    const __m256 value = _mm256_add_ps(_mm256_set1_ps(base), rest);
    _mm256_storeu_ps(out + i, value);
    below |= static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(value, _mm256_set1_ps(limit), _CMP_LT_OQ))) << i;
  }
  return below;
}

void tables(const float* values, size_t groups, float scale, uint8_t* out) {
  // Sign bits that turn a value round where the pattern's bit is not set: patterns 0 to 7, of which 8 to 15 differ in the last dimension alone.
  const __m256i pattern = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  __m256 turn[3];
  for (int j = 0; j < 3; ++j) {
    const __m256i bit = _mm256_slli_epi32(_mm256_srli_epi32(pattern, j), 31);
    turn[j] = _mm256_castsi256_ps(_mm256_xor_si256(bit, _mm256_set1_epi32(static_cast<int>(0x80000000u))));
  }
  const __m256 zero = _mm256_setzero_ps(), minus = _mm256_set1_ps(-0.0f);
  for (size_t g = 0; g < groups; ++g, values += kSignGroupDims, out += kSignGroupBytes) {
    __m256 sum = _mm256_set1_ps(0.5f);
    for (int j = 0; j < 3; ++j) sum = _mm256_add_ps(sum, _mm256_max_ps(_mm256_xor_ps(_mm256_set1_ps(scale * values[j]), turn[j]), zero));
    const __m256 last = _mm256_set1_ps(scale * values[3]);
    const __m256i below = _mm256_cvttps_epi32(_mm256_add_ps(sum, _mm256_max_ps(_mm256_xor_ps(last, minus), zero)));
    const __m256i above = _mm256_cvttps_epi32(_mm256_add_ps(sum, _mm256_max_ps(last, zero)));
    // Both packings work within halves: 0-3 and 8-11, 4-7 and 12-15 of the patterns, then their order is mended.
    const __m256i words = _mm256_packs_epi32(below, above);
    const __m256i bytes = _mm256_packus_epi16(words, words);
    const __m128i mended = _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), mended);
  }
}

}  // namespace

const Estimate1Bit estimate_1bit_avx2 = {block, tables, target};

}  // namespace nf::kernels

#endif
