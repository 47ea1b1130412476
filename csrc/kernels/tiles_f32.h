// The loops that every float32 kernel shares: tiles of Q queries by R rows whose sums stay in registers.
//
// `Lanes` is the target's vector: type, kCount, zero(), load(p), load_tail(p, left) that reads no byte beyond the row, sum(a, b, c, d): the lanes of
// four vectors summed by one fixed tree. `Step` adds one product (or squared difference) to a sum. `kQueries` is Q in `block`.
//
// Both parameters are types of the including file's unnamed namespace: each file gets its own copy of this code, made with that file's
// flags, and the linker never merges them (an AVX-512 copy must not run on an older CPU).
#pragma once

#include <immintrin.h>
#include <stddef.h>

namespace nf::kernels {

template <typename Lanes, typename Step, int kQueries>
struct TilesF32 {
  using Vector = typename Lanes::Vector;
  static constexpr size_t kCount = Lanes::kCount;

  static float sum(Vector a) { return _mm_cvtss_f32(Lanes::sum(a, a, a, a)); }

  // Q queries against R rows (1 or a multiple of 4).
  template <int Q, int R>
  static inline void tile(const float* const* q, const float* const* r, size_t dim, float* out, size_t out_stride) {
    Vector sums[Q][R];
    for (int a = 0; a < Q; ++a) {
      for (int b = 0; b < R; ++b) sums[a][b] = Lanes::zero();
    }
    size_t i = 0;
    for (; i + kCount <= dim; i += kCount) {
      Vector x[Q];
      for (int a = 0; a < Q; ++a) x[a] = Lanes::load(q[a] + i);
      for (int b = 0; b < R; ++b) {
        const Vector y = Lanes::load(r[b] + i);
        for (int a = 0; a < Q; ++a) sums[a][b] = Step::add(x[a], y, sums[a][b]);
      }
    }
    if (i < dim) {
      for (int b = 0; b < R; ++b) {
        const Vector y = Lanes::load_tail(r[b] + i, dim - i);
        for (int a = 0; a < Q; ++a) sums[a][b] = Step::add(Lanes::load_tail(q[a] + i, dim - i), y, sums[a][b]);
      }
    }
    for (int a = 0; a < Q; ++a) {
      if (R == 1) {
        out[a * out_stride] = sum(sums[a][0]);
      } else {
        for (int b = 0; b + 3 < R; b += 4) {
          _mm_storeu_ps(out + a * out_stride + b, Lanes::sum(sums[a][b], sums[a][b + 1], sums[a][b + 2], sums[a][b + 3]));
        }
      }
    }
  }

  static float pair(const float* q, const float* r, size_t dim) {
    Vector sums[4] = {Lanes::zero(), Lanes::zero(), Lanes::zero(), Lanes::zero()};
    size_t i = 0;
    for (; i + 4 * kCount <= dim; i += 4 * kCount) {
      for (int c = 0; c < 4; ++c) sums[c] = Step::add(Lanes::load(q + i + c * kCount), Lanes::load(r + i + c * kCount), sums[c]);
    }
    for (; i + kCount <= dim; i += kCount) sums[0] = Step::add(Lanes::load(q + i), Lanes::load(r + i), sums[0]);
    if (i < dim) sums[1] = Step::add(Lanes::load_tail(q + i, dim - i), Lanes::load_tail(r + i, dim - i), sums[1]);
    return sum(Lanes::plus(Lanes::plus(sums[0], sums[1]), Lanes::plus(sums[2], sums[3])));
  }

  // Eight rows at a time: two fused operations a cycle with a latency of four need eight chains.
  static void gather(const float* q, const float* const* rows, size_t n, size_t dim, float* out) {
    size_t j = 0;
    for (; j + 8 <= n; j += 8) tile<1, 8>(&q, rows + j, dim, out + j, 0);
    for (; j + 4 <= n; j += 4) tile<1, 4>(&q, rows + j, dim, out + j, 0);
    for (; j < n; ++j) tile<1, 1>(&q, rows + j, dim, out + j, 0);
  }

  template <int R>
  static void point(const float* first, size_t stride, const float** to) {
    for (size_t i = 0; i < R; ++i) to[i] = first + i * stride;
  }

  static void block(const float* q, size_t q_stride, size_t nq, const float* r, size_t r_stride, size_t nr, size_t dim, float* out,
                    size_t out_stride) {
    const float* rows[8];
    const float* queries[kQueries];
    size_t j = 0;
    for (; nq == 1 && j + 8 <= nr; j += 8) {
      point<8>(r + j * r_stride, r_stride, rows);
      tile<1, 8>(&q, rows, dim, out + j, 0);
    }
    for (; j + 4 <= nr; j += 4) {
      point<4>(r + j * r_stride, r_stride, rows);
      size_t i = 0;
      for (; i + kQueries <= nq; i += kQueries) {
        point<kQueries>(q + i * q_stride, q_stride, queries);
        tile<kQueries, 4>(queries, rows, dim, out + i * out_stride + j, out_stride);
      }
      for (; i < nq; ++i) {
        point<1>(q + i * q_stride, 0, queries);
        tile<1, 4>(queries, rows, dim, out + i * out_stride + j, out_stride);
      }
    }
    for (; j < nr; ++j) {
      point<1>(r + j * r_stride, 0, rows);
      for (size_t i = 0; i < nq; ++i) {
        point<1>(q + i * q_stride, 0, queries);
        tile<1, 1>(queries, rows, dim, out + i * out_stride + j, out_stride);
      }
    }
  }
};

}  // namespace nf::kernels
