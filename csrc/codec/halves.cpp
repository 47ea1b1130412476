#include "codec/halves.h"

#include <algorithm>

#include "base/bf16.h"
#include "kernels/dot_bf16/contract.h"

namespace nf::codec {
namespace {

using kernels::kHalvesPairs;
using kernels::kHalvesQueries;

// Of one query within its group of kHalvesQueries, which takes this many times kHalvesQueries.
std::size_t packed_dims(std::size_t dim) { return (dim + 2 * kHalvesPairs - 1) / (2 * kHalvesPairs) * 2 * kHalvesPairs; }

}  // namespace

std::size_t halves_size(std::size_t count, std::size_t dim) {
  return (count + kHalvesQueries - 1) / kHalvesQueries * kHalvesQueries * packed_dims(dim);
}

void pack_halves(const float* queries, std::size_t stride, std::size_t count, std::size_t dim, std::uint16_t* high, std::uint16_t* low) {
  std::fill_n(high, halves_size(count, dim), std::uint16_t{0});
  std::fill_n(low, halves_size(count, dim), std::uint16_t{0});
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t place = i / kHalvesQueries * packed_dims(dim) * kHalvesQueries + i % kHalvesQueries * 2;
    for (std::size_t d = 0; d < dim; ++d) {
      const std::size_t at = place + d / 2 * 2 * kHalvesQueries + d % 2;
      const float value = queries[i * stride + d];
      high[at] = to_bf16(value);
      low[at] = to_bf16(value - from_bf16(high[at]));  // the difference is a float32 number: what rounding cut off
    }
  }
}

}  // namespace nf::codec
