// The loops of dot_i8 over tiles, the same for every target. Included by target files alone; everything has internal linkage.
//
// `Tile` has  template <int Q, int R> static void run(q, r, dim, out, out_stride)  for 1 or 2 queries against 1 to 4 rows.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace nf::kernels {
namespace {

template <typename Tile>
struct DotI8Loops {
  static int32_t pair(const int8_t* q, const int8_t* r, size_t dim) {
    int32_t sum;
    Tile::template run<1, 1>(&q, &r, dim, &sum, 0);
    return sum;
  }

  // Rows that are left over go together too: one chain of sums alone would wait for itself.
  static void gather(const int8_t* q, const int8_t* const* rows, size_t n, size_t dim, int32_t* out) {
    size_t j = 0;
    for (; j + 4 <= n; j += 4) Tile::template run<1, 4>(&q, rows + j, dim, out + j, 0);
    if (n - j == 3) Tile::template run<1, 3>(&q, rows + j, dim, out + j, 0);
    if (n - j == 2) Tile::template run<1, 2>(&q, rows + j, dim, out + j, 0);
    if (n - j == 1) Tile::template run<1, 1>(&q, rows + j, dim, out + j, 0);
  }

  static void block(const int8_t* q, size_t q_stride, size_t nq, const int8_t* r, size_t r_stride, size_t nr, size_t dim, int32_t* out,
                    size_t out_stride) {
    size_t j = 0;
    for (; j + 4 <= nr; j += 4) {
      const int8_t* const rows[4] = {r + j * r_stride, r + (j + 1) * r_stride, r + (j + 2) * r_stride, r + (j + 3) * r_stride};
      size_t i = 0;
      for (; i + 2 <= nq; i += 2) {
        const int8_t* const queries[2] = {q + i * q_stride, q + (i + 1) * q_stride};
        Tile::template run<2, 4>(queries, rows, dim, out + i * out_stride + j, out_stride);
      }
      if (i < nq) {
        const int8_t* const query = q + i * q_stride;
        Tile::template run<1, 4>(&query, rows, dim, out + i * out_stride + j, out_stride);
      }
    }
    for (; j < nr; ++j) {
      const int8_t* const row = r + j * r_stride;
      for (size_t i = 0; i < nq; ++i) {
        const int8_t* const query = q + i * q_stride;
        Tile::template run<1, 1>(&query, &row, dim, out + i * out_stride + j, out_stride);
      }
    }
  }
};

}  // namespace
}  // namespace nf::kernels
