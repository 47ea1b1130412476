#include "kernels/scan_i8/contract.h"

#if defined(__x86_64__)
#include "kernels/scan_i8/loops.h"
#include "kernels/scan_i8/reach_avx2.h"

namespace nf::kernels {
namespace {

const char* target() { return "avxvnni"; }

struct Lanes {
  using Ints = __m256i;
  using Products = __m256i;
  static constexpr bool kLow = true;
  static constexpr size_t kRows = 8, kParts = 2;
  // As in avx2.cpp: twelve sums, two registers of rows and one of query codes are fifteen of sixteen.
  static constexpr int kRegisters = 2, kQueries = 6;

  static inline const int8_t* codes(const ScanI8Queries& queries) { return queries.narrow; }
  // The instruction multiplies unsigned bytes by signed ones: rows are moved up by 128, and 128 times the sum of the query's codes is
  // taken off again here.
  static inline Ints start(int32_t code_sum) { return _mm256_set1_epi32(-128 * code_sum); }
  static inline Ints widen(const int8_t* p) {
    return _mm256_xor_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), _mm256_set1_epi8(-128));
  }
  static inline Ints spread(const int8_t* q) {
    int four;
    __builtin_memcpy(&four, q, sizeof(four));
    return _mm256_set1_epi32(four);
  }
  static inline Ints plus(Ints sum, Ints rows, Ints query) { return _mm256_dpbusd_avx_epi32(sum, rows, query); }
  static inline Ints added(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
  static inline void fold(const Ints* sums, Products* out) {
    out[0] = sums[0];
    out[1] = sums[1];
  }
  static inline uint32_t reached(Products products, const ScanI8Query& query, const float* scale, const float* error, const float* add) {
    return reached_8(products, query, scale, error, add);
  }
  static inline uint32_t reached_low(Products products, Products low, const ScanI8Query& query, const float* scale, const float* error, const float* add) {
    return reached_8(products, low, query, scale, error, add);
  }
  static inline void store(Products products, int32_t* out) { _mm256_store_si256(reinterpret_cast<__m256i*>(out), products); }
};

}  // namespace

const ScanI8 scan_i8_avxvnni = {ScanLoops<Lanes>::scan, target, kNarrowCodes};

}  // namespace nf::kernels

#endif
