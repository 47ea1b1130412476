#include "kernels/dot_i8/contract.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/dot_i8/loops.h"

namespace nf::kernels {
namespace {

const char* target() { return "avx2"; }

constexpr size_t kLanes = 32;

inline __m256i load(const int8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

// AVX2 has no masked byte load: the last 1 to 31 codes go through a zeroed buffer.
inline __m256i load_tail(const int8_t* p, size_t left) {
  alignas(32) int8_t buffer[kLanes] = {};
  for (size_t i = 0; i < left; ++i) buffer[i] = p[i];
  return load(buffer);
}

inline int32_t sum_lanes(__m256i v) {
  __m128i half = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xB1)));
}

// vpmaddubsw takes one side without signs: |q| * (r with q's sign). A pair's sum is at most 2 * 127^2 = 32,258, below 2^15: nothing saturates.
inline __m256i product(__m256i q, __m256i size, __m256i r) {
  return _mm256_madd_epi16(_mm256_maddubs_epi16(size, _mm256_sign_epi8(r, q)), _mm256_set1_epi16(1));
}

// Q queries against R rows.
struct Tile {
  template <int Q, int R>
  static inline void run(const int8_t* const* q, const int8_t* const* r, size_t dim, int32_t* out, size_t out_stride) {
    __m256i sum[Q][R];
    for (int a = 0; a < Q; ++a) {
      for (int b = 0; b < R; ++b) sum[a][b] = _mm256_setzero_si256();
    }
    size_t i = 0;
    for (; i + kLanes <= dim; i += kLanes) {
      __m256i x[Q], size[Q];
      for (int a = 0; a < Q; ++a) {
        x[a] = load(q[a] + i);
        size[a] = _mm256_abs_epi8(x[a]);
      }
      for (int b = 0; b < R; ++b) {
        const __m256i y = load(r[b] + i);
        for (int a = 0; a < Q; ++a) sum[a][b] = _mm256_add_epi32(sum[a][b], product(x[a], size[a], y));
      }
    }
    if (i < dim) {
      for (int a = 0; a < Q; ++a) {
        const __m256i x = load_tail(q[a] + i, dim - i), size = _mm256_abs_epi8(x);
        for (int b = 0; b < R; ++b) sum[a][b] = _mm256_add_epi32(sum[a][b], product(x, size, load_tail(r[b] + i, dim - i)));
      }
    }
    for (int a = 0; a < Q; ++a) {
      for (int b = 0; b < R; ++b) out[a * out_stride + b] = sum_lanes(sum[a][b]);
    }
  }
};

using Loops = DotI8Loops<Tile>;

}  // namespace

const DotI8 dot_i8_avx2 = {Loops::pair, Loops::gather, Loops::block, target};

}  // namespace nf::kernels

#endif
