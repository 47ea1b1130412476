#include "kernels/scan_i8/contract.h"

#if defined(__x86_64__)
#include "kernels/scan_i8/loops.h"
#include "kernels/scan_i8/reach_avx512.h"

namespace nf::kernels {
namespace {

const char* target() { return "avx512"; }

struct Lanes {
  using Ints = __m512i;
  using Products = __m512i;
  static constexpr bool kLow = false;
  static constexpr size_t kRows = 8, kParts = 1;
  // Twelve queries by two registers of rows: twenty-four sums, two registers of rows and one of query codes of thirty-two.
  static constexpr int kRegisters = 2, kQueries = 12;

  static inline const int16_t* codes(const ScanI8Queries& queries) { return queries.wide; }
  static inline Ints start(int32_t) { return _mm512_setzero_si512(); }
  static inline Ints widen(const int8_t* p) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
  static inline Ints spread(const int16_t* q) {
    long long four;
    __builtin_memcpy(&four, q, sizeof(four));
    return _mm512_set1_epi64(four);
  }
  static inline Ints plus(Ints sum, Ints rows, Ints query) { return _mm512_add_epi32(sum, _mm512_madd_epi16(rows, query)); }

  // The two halves of each row's 64 bits are summed and narrowed to 32.
  static inline __m256i narrow(Ints sums) { return _mm512_cvtepi64_epi32(_mm512_add_epi32(sums, _mm512_srli_epi64(sums, 32))); }
  static inline void fold(const Ints* sums, Products* out) { out[0] = _mm512_inserti64x4(_mm512_castsi256_si512(narrow(sums[0])), narrow(sums[1]), 1); }

  static inline uint32_t reached(Products products, const ScanI8Query& query, const float* scale, const float* error, const float* add) {
    return reached_16(products, query, scale, error, add);
  }
  static inline void store(Products products, int32_t* out) { _mm512_store_si512(out, products); }
};

}  // namespace

const ScanI8 scan_i8_avx512 = {ScanLoops<Lanes>::scan, target, kWideCodes};

}  // namespace nf::kernels

#endif
