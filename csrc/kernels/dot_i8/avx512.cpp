#include "kernels/dot_i8/contract.h"

#if defined(__x86_64__)
#include <immintrin.h>

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
template <int Q, int R>
inline void tile(const int8_t* const* q, const int8_t* const* r, size_t dim, int32_t* out, size_t out_stride) {
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

int32_t pair(const int8_t* q, const int8_t* r, size_t dim) {
  int32_t sum;
  tile<1, 1>(&q, &r, dim, &sum, 0);
  return sum;
}

void gather(const int8_t* q, const int8_t* const* rows, size_t n, size_t dim, int32_t* out) {
  size_t j = 0;
  for (; j + 4 <= n; j += 4) tile<1, 4>(&q, rows + j, dim, out + j, 0);
  for (; j < n; ++j) tile<1, 1>(&q, rows + j, dim, out + j, 0);
}

void block(const int8_t* q, size_t q_stride, size_t nq, const int8_t* r, size_t r_stride, size_t nr, size_t dim, int32_t* out,
           size_t out_stride) {
  size_t j = 0;
  for (; j + 4 <= nr; j += 4) {
    const int8_t* const rows[4] = {r + j * r_stride, r + (j + 1) * r_stride, r + (j + 2) * r_stride, r + (j + 3) * r_stride};
    size_t i = 0;
    for (; i + 2 <= nq; i += 2) {
      const int8_t* const queries[2] = {q + i * q_stride, q + (i + 1) * q_stride};
      tile<2, 4>(queries, rows, dim, out + i * out_stride + j, out_stride);
    }
    if (i < nq) {
      const int8_t* const query = q + i * q_stride;
      tile<1, 4>(&query, rows, dim, out + i * out_stride + j, out_stride);
    }
  }
  for (; j < nr; ++j) {
    const int8_t* const row = r + j * r_stride;
    for (size_t i = 0; i < nq; ++i) {
      const int8_t* const query = q + i * q_stride;
      tile<1, 1>(&query, &row, dim, out + i * out_stride + j, out_stride);
    }
  }
}

}  // namespace

const DotI8 dot_i8_avx512 = {pair, gather, block, target};

}  // namespace nf::kernels

#endif
