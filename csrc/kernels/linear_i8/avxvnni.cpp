#include "kernels/linear_i8/contract.h"

#if defined(__x86_64__)
#include "kernels/encoder_avx2.h"
#include "kernels/linear_i8/loops.h"

namespace nf::kernels {
namespace {

const char* target() { return "avxvnni"; }

// vpdpbusd takes unsigned codes and signed weights as they are, and does not saturate.
struct Products {
  using I = __m256i;
  static constexpr int kParts = 2, kRows = 6;  // twelve sums, two registers of weights and one of codes of sixteen
  static constexpr bool kWeightsFirst = true;
  struct Start {};

  static inline Start start(const int8_t*, size_t) { return {}; }
  static inline I begin(const Start&, int) { return _mm256_setzero_si256(); }
  static inline I weights(const int8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static inline I spread(const uint8_t* q) {
    int four;
    __builtin_memcpy(&four, q, sizeof(four));
    return _mm256_set1_epi32(four);
  }
  static inline I plus(I sum, I weights, I four) { return _mm256_dpbusd_avx_epi32(sum, four, weights); }
  static inline __m256 finish(const I (&sums)[kParts], int v) { return _mm256_cvtepi32_ps(sums[v]); }
};

}  // namespace

const LinearI8 linear_i8_avxvnni = {LinearI8Loops<EncoderAvx2, Products>::run, nullptr, target};

}  // namespace nf::kernels

#endif
