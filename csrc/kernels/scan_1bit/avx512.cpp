#include "kernels/scan_1bit/contract.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/scan_1bit/loops.h"

namespace nf::kernels {
namespace {

const char* target() { return "avx512"; }

struct Lanes {
  using Bytes = __m512i;
  static constexpr size_t kTested = 16;
  // Six queries: twenty-four registers of sums, two of patterns, a mask, a table and two of entries are thirty of thirty-two.
  static constexpr int kQueries = 6;

  static inline Bytes zero() { return _mm512_setzero_si512(); }
  static inline Bytes load(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static inline Bytes low(Bytes codes) { return _mm512_and_si512(codes, _mm512_set1_epi8(15)); }
  static inline Bytes high(Bytes codes) { return low(_mm512_srli_epi16(codes, 4)); }
  static inline Bytes look(Bytes table, Bytes patterns) { return _mm512_shuffle_epi8(table, patterns); }
  static inline Bytes add16(Bytes a, Bytes b) { return _mm512_add_epi16(a, b); }
  static inline Bytes odd(Bytes bytes) { return _mm512_srli_epi16(bytes, 8); }

  static inline __m128i quarters(__m512i sums) {
    const __m256i halves = _mm256_add_epi16(_mm512_castsi512_si256(sums), _mm512_extracti64x4_epi64(sums, 1));
    return _mm_add_epi16(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
  }
  static inline void fold(Bytes all, Bytes odd, uint16_t* out) {
    const __m128i odd_rows = quarters(odd), even_rows = quarters(_mm512_sub_epi16(all, _mm512_slli_epi16(odd, 8)));
    _mm_store_si128(reinterpret_cast<__m128i*>(out), _mm_unpacklo_epi16(even_rows, odd_rows));
    _mm_store_si128(reinterpret_cast<__m128i*>(out + 8), _mm_unpackhi_epi16(even_rows, odd_rows));
  }

  static inline uint32_t reached(const uint16_t* sums, const Scan1BitQuery& query, const float* factor, const float* error, const float* add) {
    const __m512 sum = _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(_mm256_load_si256(reinterpret_cast<const __m256i*>(sums))));
    const __m512 product = _mm512_fmadd_ps(_mm512_set1_ps(query.step), sum, _mm512_set1_ps(query.shift));
    const __m512 beside = _mm512_fmadd_ps(_mm512_set1_ps(query.slack), _mm512_loadu_ps(error), _mm512_loadu_ps(add));
    const __m512 upper = _mm512_fmadd_ps(_mm512_loadu_ps(factor), product, beside);
    return static_cast<uint32_t>(_mm512_cmp_ps_mask(upper, _mm512_set1_ps(query.cut), _CMP_GE_OQ));
  }
};

}  // namespace

const Scan1Bit scan_1bit_avx512 = {Scan1BitLoops<Lanes>::scan, target};

}  // namespace nf::kernels

#endif
