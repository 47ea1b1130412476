// A kernel of float32 queries and bfloat16 rows against float64 loops, within the bound of its contract.
#pragma once

#include <cmath>
#include <cstdlib>
#include <vector>

#include "base/bf16.h"
#include "codec/halves.h"
#include "compare_scans.h"
#include "kernels/dot_bf16/contract.h"

namespace {

// Values of either sign from 2^-least to 2^least in size, all 24 bits of them drawn.
float spread(int least) {
  const double mantissa = 1.0 + (std::rand() % (1 << 23)) * 0x1p-23;
  return static_cast<float>((std::rand() % 2 == 0 ? 1.0 : -1.0) * std::ldexp(mantissa, std::rand() % (2 * least + 1) - least));
}

// Rows end where their memory does; between the rows of the answer nothing is written.
void compare_halves(const DotBf16& kernel, size_t dim, size_t nq, size_t nr, int least) {
  std::vector<float> queries(nq * dim);
  std::vector<uint16_t> rows(nr * dim), high(nf::codec::halves_size(nq, dim)), low(high.size());
  for (float& value : queries) value = spread(least);
  for (uint16_t& value : rows) value = nf::to_bf16(spread(least));
  nf::codec::pack_halves(queries.data(), dim, nq, dim, high.data(), low.data());
  const size_t stride = nr + 3;
  std::vector<float> out(nq * stride, -7.0f);
  kernel.block(high.data(), low.data(), nq, rows.data(), nr, dim, out.data(), stride);
  const double n = static_cast<double>(dim);
  bool good = true;
  for (size_t i = 0; i < nq; ++i) {
    for (size_t j = 0; j < nr; ++j) {
      double sum = 0.0, size = 0.0, q_square = 0.0, r_square = 0.0;
      for (size_t d = 0; d < dim; ++d) {
        const double q = queries[i * dim + d], r = nf::from_bf16(rows[j * dim + d]);
        sum += q * r;
        size += std::fabs(q * r);
        q_square += q * q;
        r_square += r * r;
      }
      const double slack = (0x1p-16 + (n + 40) * 0x1p-24) * 1.02 * size + n * 0x1p-123 * (1 + std::sqrt(q_square) + std::sqrt(r_square));
      good = good && std::fabs(static_cast<double>(out[i * stride + j]) - sum) <= slack;
    }
    for (size_t j = nr; j < stride; ++j) good = good && out[i * stride + j] == -7.0f;
  }
  expect(good, "dot_bf16", dim);
}

// Dimensions, queries and rows around the 32, 16 and 16 of a tile; common values, and those whose products and lower parts are denormal.
void compare_halves(const DotBf16& kernel) {
  for (const size_t dim : {0, 1, 2, 3, 31, 32, 33, 63, 64, 100, 385}) {
    for (const size_t nq : {1, 2, 15, 16, 17, 33}) {
      for (const size_t nr : {1, 15, 16, 17, 32, 33, 49}) compare_halves(kernel, dim, nq, nr, nq % 2 == 0 ? 3 : 60);
    }
  }
}

}  // namespace
