#include "kernels/dot_i8/contract.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/dot_i8/loops.h"

namespace nf::kernels {
namespace {

const char* target() { return "avx512"; }

constexpr size_t kLanes = 32;

inline __m512i load(const int8_t* p) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }

// The last 1 to 31 codes: a masked load reads no byte beyond the row.
inline __m512i load_tail(const int8_t* p, size_t left) {
  return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(static_cast<__mmask32>((1u << left) - 1u), p));
}

inline int32_t sum_lanes(__m512i v) {
  const __m256i wide = _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti32x8_epi32(v, 1));
  __m128i half = _mm_add_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xB1)));
}

// Q queries against R rows. Codes are widened to 16 bits, where a product pair's sum (at most 2 * 2^14) cannot saturate.
struct Tile {
  template <int Q, int R>
  static inline void run(const int8_t* const* q, const int8_t* const* r, size_t dim, int32_t* out, size_t out_stride) {
    __m512i sum[Q][R];
    for (int a = 0; a < Q; ++a) {
      for (int b = 0; b < R; ++b) sum[a][b] = _mm512_setzero_si512();
    }
    size_t i = 0;
    for (; i + kLanes <= dim; i += kLanes) {
      __m512i x[Q];
      for (int a = 0; a < Q; ++a) x[a] = load(q[a] + i);
      for (int b = 0; b < R; ++b) {
        const __m512i y = load(r[b] + i);
        for (int a = 0; a < Q; ++a) sum[a][b] = _mm512_add_epi32(sum[a][b], _mm512_madd_epi16(x[a], y));
      }
    }
    if (i < dim) {
      for (int a = 0; a < Q; ++a) {
        const __m512i x = load_tail(q[a] + i, dim - i);
        for (int b = 0; b < R; ++b) sum[a][b] = _mm512_add_epi32(sum[a][b], _mm512_madd_epi16(x, load_tail(r[b] + i, dim - i)));
      }
    }
    for (int a = 0; a < Q; ++a) {
      for (int b = 0; b < R; ++b) out[a * out_stride + b] = sum_lanes(sum[a][b]);
    }
  }
};

using Loops = DotI8Loops<Tile>;

}  // namespace

const DotI8 dot_i8_avx512 = {Loops::pair, Loops::gather, Loops::block, target};

}  // namespace nf::kernels

#endif
