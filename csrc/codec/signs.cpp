#include "codec/signs.h"

#include <algorithm>
#include <cmath>

#include "base/rounding.h"

namespace nf::codec {

using kernels::kSignBlockRows;
using kernels::kSignGroupBytes;
using kernels::kSignGroupDims;

SignRows::SignRows(std::size_t rows, std::size_t dim)
    : dim_(dim), codes_(rows / kSignBlockRows * sign_groups(dim) * kSignGroupBytes), factor_(rows), error_(rows) {
  codes_.zero();
  factor_.zero();
  error_.zero();
}

void SignRows::encode(std::size_t place, const float* rotated, double square) {
  const std::size_t row = place % kSignBlockRows, half = row / kSignGroupBytes * 4;
  std::uint8_t* byte = codes_.data() + place / kSignBlockRows * sign_groups(dim_) * kSignGroupBytes + row % kSignGroupBytes;
  double sum = 0.0;
  for (std::size_t i = 0; i < dim_; i += kSignGroupDims, byte += kSignGroupBytes) {
    unsigned pattern = 0;
    for (std::size_t j = i; j < std::min(i + kSignGroupDims, dim_); ++j) {
      sum += std::fabs(static_cast<double>(rotated[j]));
      pattern |= (rotated[j] >= 0.0f ? 1u : 0u) << (j - i);
    }
    *byte = static_cast<std::uint8_t>((*byte & ~(15u << half)) | pattern << half);
  }
  const double dim = static_cast<double>(dim_);
  const bool unsure = sum * sum < 0.25 * dim * square;
  const double factor = unsure || square == 0.0 ? 0.0 : square / sum;
  factor_[place] = static_cast<float>(factor);
  error_[place] = unsure ? kUnsure : rounded_up(std::sqrt(std::max(0.0, factor * factor * dim - square)) * (1.0 + 0x1p-20));
}

}  // namespace nf::codec
