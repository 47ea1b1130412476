#include "kernels/scan_1bit/contract.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/scan_1bit/loops.h"

namespace nf::kernels {
namespace {

const char* target() { return "avx2"; }

struct Lanes {
  using Bytes = __m256i;
  static constexpr size_t kTested = 8;
  // Two queries: eight registers of sums, two of patterns, a mask, a table and two of entries are fourteen of sixteen.
  static constexpr int kQueries = 2;

  static inline Bytes zero() { return _mm256_setzero_si256(); }
  static inline Bytes load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static inline Bytes low(Bytes codes) { return _mm256_and_si256(codes, _mm256_set1_epi8(15)); }
  static inline Bytes high(Bytes codes) { return low(_mm256_srli_epi16(codes, 4)); }
  static inline Bytes look(Bytes table, Bytes patterns) { return _mm256_shuffle_epi8(table, patterns); }
  static inline Bytes add16(Bytes a, Bytes b) { return _mm256_add_epi16(a, b); }
  static inline Bytes odd(Bytes bytes) { return _mm256_srli_epi16(bytes, 8); }

  static inline __m128i halves(__m256i sums) { return _mm_add_epi16(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1)); }
  static inline void fold(Bytes all, Bytes odd, uint16_t* out) {
    const __m128i odd_rows = halves(odd), even_rows = halves(_mm256_sub_epi16(all, _mm256_slli_epi16(odd, 8)));
    _mm_store_si128(reinterpret_cast<__m128i*>(out), _mm_unpacklo_epi16(even_rows, odd_rows));
    _mm_store_si128(reinterpret_cast<__m128i*>(out + 8), _mm_unpackhi_epi16(even_rows, odd_rows));
  }

  static inline uint32_t reached(const uint16_t* sums, const Scan1BitQuery& query, const float* factor, const float* error, const float* add) {
    const __m256 sum = _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(sums))));
    const __m256 product = _mm256_fmadd_ps(_mm256_set1_ps(query.step), sum, _mm256_set1_ps(query.shift));
    const __m256 beside = _mm256_fmadd_ps(_mm256_set1_ps(query.slack), _mm256_loadu_ps(error), _mm256_loadu_ps(add));
    const __m256 upper = _mm256_fmadd_ps(_mm256_loadu_ps(factor), product, beside);
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(upper, _mm256_set1_ps(query.cut), _CMP_GE_OQ)));
  }
};

}  // namespace

const Scan1Bit scan_1bit_avx2 = {Scan1BitLoops<Lanes>::scan, target};

}  // namespace nf::kernels

#endif
