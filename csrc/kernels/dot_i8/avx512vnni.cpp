#include "kernels/dot_i8/contract.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/dot_i8/loops.h"

namespace nf::kernels {
namespace {

const char* target() { return "avx512vnni"; }

constexpr size_t kLanes = 64;

inline __m512i load(const int8_t* p) { return _mm512_loadu_si512(p); }
// The last 1 to 63 codes: a masked load reads no byte beyond the row, and gives zeros.
inline __m512i load_tail(const int8_t* p, size_t left) { return _mm512_maskz_loadu_epi8((__mmask64{1} << left) - 1, p); }
// The instruction multiplies unsigned bytes by signed ones: rows are moved up by 128, and 128 times the sum of the query's codes is taken off.
inline __m512i raised(__m512i codes) { return _mm512_xor_si512(codes, _mm512_set1_epi8(-128)); }

inline int32_t sum_lanes(__m512i v) {
  const __m256i wide = _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti32x8_epi32(v, 1));
  __m128i half = _mm_add_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xB1)));
}

// Sums of four registers' lanes.
inline __m128i sum_four(const __m512i* v) {
  __m128i part[4];
  for (int i = 0; i < 4; ++i) {
    const __m256i wide = _mm256_add_epi32(_mm512_castsi512_si256(v[i]), _mm512_extracti32x8_epi32(v[i], 1));
    part[i] = _mm_add_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  }
  return _mm_hadd_epi32(_mm_hadd_epi32(part[0], part[1]), _mm_hadd_epi32(part[2], part[3]));
}

// Q queries against R rows. Partial sums of a lane wrap around at most once more than the whole does: the difference is right modulo 2^32.
struct Tile {
  template <int Q, int R>
  static inline void run(const int8_t* const* q, const int8_t* const* r, size_t dim, int32_t* out, size_t out_stride) {
    __m512i sum[Q][R], codes[Q];
    for (int a = 0; a < Q; ++a) {
      codes[a] = _mm512_setzero_si512();
      for (int b = 0; b < R; ++b) sum[a][b] = _mm512_setzero_si512();
    }
    const __m512i all = _mm512_set1_epi8(-128);
    for (size_t i = 0; i < dim; i += kLanes) {
      const bool whole = i + kLanes <= dim;
      __m512i x[Q];
      for (int a = 0; a < Q; ++a) {
        x[a] = whole ? load(q[a] + i) : load_tail(q[a] + i, dim - i);
        codes[a] = _mm512_dpbusd_epi32(codes[a], all, x[a]);
      }
      for (int b = 0; b < R; ++b) {
        const __m512i y = raised(whole ? load(r[b] + i) : load_tail(r[b] + i, dim - i));
        for (int a = 0; a < Q; ++a) sum[a][b] = _mm512_dpbusd_epi32(sum[a][b], y, x[a]);
      }
    }
    for (int a = 0; a < Q; ++a) {
      for (int b = 0; b < R; ++b) sum[a][b] = _mm512_sub_epi32(sum[a][b], codes[a]);
      if (R == 4) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + a * out_stride), sum_four(sum[a]));
      } else {
        for (int b = 0; b < R; ++b) out[a * out_stride + b] = sum_lanes(sum[a][b]);
      }
    }
  }
};

using Loops = DotI8Loops<Tile>;

}  // namespace

const DotI8 dot_i8_avx512vnni = {Loops::pair, Loops::gather, Loops::block, target};

}  // namespace nf::kernels

#endif
