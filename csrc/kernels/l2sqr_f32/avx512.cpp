#include "kernels/l2sqr_f32/contract.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace nf::kernels {
namespace {

const char* target() { return "avx512"; }

constexpr size_t kLanes = 16;

// First `left` lanes (1 to 15) set: masked loads read no byte beyond the row.
inline __mmask16 tail_mask(size_t left) { return static_cast<__mmask16>((1u << left) - 1u); }

inline __m512 step(__m512 q, __m512 r, __m512 sum) {
  const __m512 gap = _mm512_sub_ps(q, r);
  return _mm512_fmadd_ps(gap, gap, sum);
}

inline __m256 fold(__m512 v) { return _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)); }

// The sums of four accumulators' lanes: lane j with j + 8 first, then the tree ((0+1)+(2+3)) + ((4+5)+(6+7)).
inline __m128 sum_lanes(__m512 a, __m512 b, __m512 c, __m512 d) {
  const __m256 quads = _mm256_hadd_ps(_mm256_hadd_ps(fold(a), fold(b)), _mm256_hadd_ps(fold(c), fold(d)));
  return _mm_add_ps(_mm256_castps256_ps128(quads), _mm256_extractf128_ps(quads, 1));
}

inline float sum_lanes(__m512 a) { return _mm_cvtss_f32(sum_lanes(a, a, a, a)); }

// Q queries against R rows (1 or a multiple of 4), all accumulators in registers.
template <int Q, int R>
inline void tile(const float* const* q, const float* const* r, size_t dim, float* out, size_t out_stride) {
  __m512 sum[Q][R];
  for (int a = 0; a < Q; ++a) {
    for (int b = 0; b < R; ++b) sum[a][b] = _mm512_setzero_ps();
  }
  size_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) {
    __m512 x[Q];
    for (int a = 0; a < Q; ++a) x[a] = _mm512_loadu_ps(q[a] + i);
    for (int b = 0; b < R; ++b) {
      const __m512 y = _mm512_loadu_ps(r[b] + i);
      for (int a = 0; a < Q; ++a) sum[a][b] = step(x[a], y, sum[a][b]);
    }
  }
  if (i < dim) {
    const __mmask16 mask = tail_mask(dim - i);
    for (int b = 0; b < R; ++b) {
      const __m512 y = _mm512_maskz_loadu_ps(mask, r[b] + i);
      for (int a = 0; a < Q; ++a) sum[a][b] = step(_mm512_maskz_loadu_ps(mask, q[a] + i), y, sum[a][b]);
    }
  }
  for (int a = 0; a < Q; ++a) {
    if (R == 1) {
      out[a * out_stride] = sum_lanes(sum[a][0]);
    } else {
      for (int b = 0; b + 3 < R; b += 4) _mm_storeu_ps(out + a * out_stride + b, sum_lanes(sum[a][b], sum[a][b + 1], sum[a][b + 2], sum[a][b + 3]));
    }
  }
}

float pair(const float* q, const float* r, size_t dim) {
  __m512 sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
  size_t i = 0;
  for (; i + 4 * kLanes <= dim; i += 4 * kLanes) {
    for (int c = 0; c < 4; ++c) sum[c] = step(_mm512_loadu_ps(q + i + c * kLanes), _mm512_loadu_ps(r + i + c * kLanes), sum[c]);
  }
  for (; i + kLanes <= dim; i += kLanes) sum[0] = step(_mm512_loadu_ps(q + i), _mm512_loadu_ps(r + i), sum[0]);
  if (i < dim) {
    const __mmask16 mask = tail_mask(dim - i);
    sum[1] = step(_mm512_maskz_loadu_ps(mask, q + i), _mm512_maskz_loadu_ps(mask, r + i), sum[1]);
  }
  return sum_lanes(_mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3])));
}

// Eight rows at a time: two fused operations a cycle with a latency of four need eight chains.
void gather(const float* q, const float* const* rows, size_t n, size_t dim, float* out) {
  size_t j = 0;
  for (; j + 8 <= n; j += 8) tile<1, 8>(&q, rows + j, dim, out + j, 0);
  for (; j + 4 <= n; j += 4) tile<1, 4>(&q, rows + j, dim, out + j, 0);
  for (; j < n; ++j) tile<1, 1>(&q, rows + j, dim, out + j, 0);
}

// Four queries by four rows: sixteen accumulators of thirty-two registers, eight loads for sixteen fused operations.
void block(const float* q, size_t q_stride, size_t nq, const float* r, size_t r_stride, size_t nr, size_t dim, float* out,
           size_t out_stride) {
  size_t j = 0;
  if (nq == 1) {
    for (; j + 8 <= nr; j += 8) {
      const float* rows[8];
      for (size_t b = 0; b < 8; ++b) rows[b] = r + (j + b) * r_stride;
      tile<1, 8>(&q, rows, dim, out + j, 0);
    }
  }
  for (; j + 4 <= nr; j += 4) {
    const float* const rows[4] = {r + j * r_stride, r + (j + 1) * r_stride, r + (j + 2) * r_stride, r + (j + 3) * r_stride};
    size_t i = 0;
    for (; i + 4 <= nq; i += 4) {
      const float* const queries[4] = {q + i * q_stride, q + (i + 1) * q_stride, q + (i + 2) * q_stride, q + (i + 3) * q_stride};
      tile<4, 4>(queries, rows, dim, out + i * out_stride + j, out_stride);
    }
    for (; i < nq; ++i) {
      const float* const query = q + i * q_stride;
      tile<1, 4>(&query, rows, dim, out + i * out_stride + j, out_stride);
    }
  }
  for (; j < nr; ++j) {
    const float* const row = r + j * r_stride;
    for (size_t i = 0; i < nq; ++i) {
      const float* const query = q + i * q_stride;
      tile<1, 1>(&query, &row, dim, out + i * out_stride + j, out_stride);
    }
  }
}

}  // namespace

const L2SqrF32 l2sqr_f32_avx512 = {pair, gather, block, target};

}  // namespace nf::kernels

#endif
