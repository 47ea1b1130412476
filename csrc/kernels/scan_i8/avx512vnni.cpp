#include "kernels/scan_i8/contract.h"

#if defined(__x86_64__)
#include "kernels/scan_i8/loops.h"
#include "kernels/scan_i8/reach_avx512.h"

namespace nf::kernels {
namespace {

const char* target() { return "avx512vnni"; }

struct Lanes {
  using Ints = __m512i;
  using Products = __m512i;
  static constexpr bool kLow = true;
  static constexpr size_t kRows = 16, kParts = 2;
  // Twelve queries by two blocks of rows: twenty-four sums, two registers of rows and one of query codes of thirty-two.
  static constexpr int kRegisters = 2, kQueries = 12;

  static inline const int8_t* codes(const ScanI8Queries& queries) { return queries.narrow; }
  // The instruction multiplies unsigned bytes by signed ones: rows are moved up by 128, and 128 times the sum of the query's codes is
  // taken off again here.
  static inline Ints start(int32_t code_sum) { return _mm512_set1_epi32(-128 * code_sum); }
  static inline Ints widen(const int8_t* p) { return _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(-128)); }
  static inline Ints spread(const int8_t* q) {
    int four;
    __builtin_memcpy(&four, q, sizeof(four));
    return _mm512_set1_epi32(four);
  }
  static inline Ints plus(Ints sum, Ints rows, Ints query) { return _mm512_dpbusd_epi32(sum, rows, query); }
  static inline Ints added(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
  static inline void fold(const Ints* sums, Products* out) {
    out[0] = sums[0];
    out[1] = sums[1];
  }
  static inline uint32_t reached(Products products, const ScanI8Query& query, const float* scale, const float* error, const float* add) {
    return reached_16(products, query, scale, error, add);
  }
  static inline uint32_t reached_low(Products products, Products low, const ScanI8Query& query, const float* scale, const float* error, const float* add) {
    return reached_16(products, low, query, scale, error, add);
  }
  static inline void store(Products products, int32_t* out) { _mm512_store_si512(out, products); }
};

}  // namespace

const ScanI8 scan_i8_avx512vnni = {ScanLoops<Lanes>::scan, target, kNarrowCodes};

}  // namespace nf::kernels

#endif
