#include "kernels/linear_i8/contract.h"

#if defined(__x86_64__)
#include "kernels/encoder_avx2.h"
#include "kernels/linear_i8/loops.h"

namespace nf::kernels {
namespace {

const char* target() { return "avx2"; }

// vpmaddubsw, the product of bytes, saturates: two products of a code up to 255 and a weight up to 127 do not fit 16 bits. So both sides are
// widened; a register of sums holds four columns, two sums for each.
struct Products {
  using I = __m256i;
  static constexpr int kParts = 4, kRows = 3;  // twelve sums, three registers of codes and one of weights are all sixteen
  static constexpr bool kWeightsFirst = false;
  struct Start {};

  static inline Start start(const int8_t*, size_t) { return {}; }
  static inline I begin(const Start&, int) { return _mm256_setzero_si256(); }
  static inline I weights(const int8_t* p) { return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static inline I spread(const uint8_t* q) {
    // A load that repeats, where gcc makes a move and a shuffle of _mm_set1_epi32: shuffles have one port, which widening needs.
    return _mm256_cvtepu8_epi16(_mm_castps_si128(_mm_broadcast_ss(reinterpret_cast<const float*>(q))));
  }
  static inline I plus(I sum, I weights, I four) { return _mm256_add_epi32(sum, _mm256_madd_epi16(weights, four)); }
  // Columns 0 1 4 5 2 3 6 7 after the horizontal sum, put in order.
  static inline __m256 finish(const I (&sums)[kParts], int v) {
    return _mm256_cvtepi32_ps(_mm256_permute4x64_epi64(_mm256_hadd_epi32(sums[2 * v], sums[2 * v + 1]), 0xD8));
  }
};

}  // namespace

const LinearI8 linear_i8_avx2 = {LinearI8Loops<EncoderAvx2, Products>::run, nullptr, target};

}  // namespace nf::kernels

#endif
