// A random rotation that takes d log d steps: four rounds of random signs and a Hadamard transform, after Ailon and Chazelle, "The fast
// Johnson-Lindenstrauss transform and approximate nearest neighbors", SIAM J. Comput. 39, 2009.
//
// A transform's length is a power of two. Where the dimensions are not one, rounds take the first and the last 2^k of them in turns; what is in
// both windows carries every dimension to every other. Codes only need values that are spread alike over the dimensions, not the uniform
// distribution that codec/rotation.h draws for its bounds, and one query is rotated in less than a microsecond instead of twenty at 384 dimensions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/hadamard/contract.h"

namespace nf::codec {

class FastRotation {
 public:
  // Rows of `dim` values become rows of width() >= dim, a multiple of 16 (the unit of sign codes).
  FastRotation(std::size_t dim, std::uint64_t seed);

  std::size_t width() const { return width_; }
  // Lengths and inner products are kept, up to float32 rounding. Sums and products in a fixed order: the same bits on every target.
  void apply(const kernels::Hadamard& kernel, const float* row, float* out) const;

 private:
  std::size_t dim_, width_, window_;
  std::vector<float> signs_;  // four times width_, +-1 / sqrt(window_) inside the round's window and +-1 beside it
};

}  // namespace nf::codec
