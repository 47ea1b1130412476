#include "kernels/scan_i8/contract.h"

#if defined(__x86_64__)
#include "kernels/scan_i8/loops.h"
#include "kernels/scan_i8/reach_avx2.h"

namespace nf::kernels {
namespace {

const char* target() { return "avx2"; }

struct Lanes {
  using Ints = __m256i;
  using Products = __m256i;
  static constexpr bool kLow = false;
  static constexpr size_t kRows = 4, kParts = 1;
  // Six queries by two registers of rows: twelve sums, two registers of rows and one of query codes are fifteen of sixteen.
  static constexpr int kRegisters = 2, kQueries = 6;

  static inline const int16_t* codes(const ScanI8Queries& queries) { return queries.wide; }
  static inline Ints start(int32_t) { return _mm256_setzero_si256(); }
  static inline Ints widen(const int8_t* p) { return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static inline Ints spread(const int16_t* q) {
    long long four;
    __builtin_memcpy(&four, q, sizeof(four));
    return _mm256_set1_epi64x(four);
  }
  static inline Ints plus(Ints sum, Ints rows, Ints query) { return _mm256_add_epi32(sum, _mm256_madd_epi16(rows, query)); }

  // Rows 0 1 4 5 2 3 6 7 after the horizontal sum, put in order.
  static inline void fold(const Ints* sums, Products* out) { out[0] = _mm256_permute4x64_epi64(_mm256_hadd_epi32(sums[0], sums[1]), 0xD8); }

  static inline uint32_t reached(Products products, const ScanI8Query& query, const float* scale, const float* error, const float* add) {
    return reached_8(products, query, scale, error, add);
  }
  static inline void store(Products products, int32_t* out) { _mm256_store_si256(reinterpret_cast<__m256i*>(out), products); }
};

}  // namespace

const ScanI8 scan_i8_avx2 = {ScanLoops<Lanes>::scan, target, kWideCodes};

}  // namespace nf::kernels

#endif
