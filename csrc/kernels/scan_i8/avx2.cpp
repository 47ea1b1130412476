#include "kernels/scan_i8/contract.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/scan_i8/loops.h"

namespace nf::kernels {
namespace {

const char* target() { return "avx2"; }

struct Lanes {
  using Ints = __m256i;
  using Products = __m256i;
  static constexpr size_t kRows = 4;
  // Six queries by two registers of rows: twelve sums, two registers of rows and one of query codes are fifteen of sixteen.
  static constexpr int kQueries = 6;

  static inline Ints zero() { return _mm256_setzero_si256(); }
  static inline Ints widen(const int8_t* p) { return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static inline Ints spread(const int16_t* q) {
    long long four;
    __builtin_memcpy(&four, q, sizeof(four));
    return _mm256_set1_epi64x(four);
  }
  static inline Ints plus(Ints sum, Ints rows, Ints query) { return _mm256_add_epi32(sum, _mm256_madd_epi16(rows, query)); }

  // Rows 0 1 4 5 2 3 6 7 after the horizontal sum, put in order.
  static inline Products fold(Ints low, Ints high) { return _mm256_permute4x64_epi64(_mm256_hadd_epi32(low, high), 0xD8); }

  static inline uint32_t reached(Products products, float factor, float slack, float cut, const float* scale, const float* error, const float* add) {
    const __m256 scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(products), _mm256_loadu_ps(scale));
    const __m256 beside = _mm256_fmadd_ps(_mm256_set1_ps(slack), _mm256_loadu_ps(error), _mm256_loadu_ps(add));
    const __m256 upper = _mm256_fmadd_ps(_mm256_set1_ps(factor), scaled, beside);
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(upper, _mm256_set1_ps(cut), _CMP_GE_OQ)));
  }

  static inline void store(Products products, int32_t* out) { _mm256_store_si256(reinterpret_cast<__m256i*>(out), products); }
};

}  // namespace

const ScanI8 scan_i8_avx2 = {ScanLoops<Lanes>::scan, target};

}  // namespace nf::kernels

#endif
