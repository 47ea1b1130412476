#include "codec/codes.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "codec/quantize.h"

namespace nf::codec {

// Codes of row - centre, which goes to `rest`; returns their scale.
float Coder::code(const float* row, float* rest, std::int8_t* codes) const {
  for (std::size_t i = 0; i < dim_; ++i) {
    const float gap = row[i] - centre_[i];
    // Two values near the ends of float32 may differ by more than it holds.
    rest[i] = std::max(-std::numeric_limits<float>::max(), std::min(std::numeric_limits<float>::max(), gap));
  }
  const float scale = scale_for(peak_of(rest, dim_));
  quantize(rest, dim_, scale, codes);
  std::fill(codes + dim_, codes + width_, std::int8_t{0});
  return scale;
}

void Coder::encode_row(const float* row, float* rest, std::int8_t* out) const {
  CodeTerms terms{code(row, rest, out), 0.0f};
  double sum = 0.0;
  if (metric_ == Metric::l2) {
    for (std::size_t i = 0; i < dim_; ++i) sum += static_cast<double>(rest[i]) * rest[i];
  } else {
    for (std::size_t i = 0; i < dim_; ++i) sum -= static_cast<double>(centre_[i]) * rest[i];
  }
  terms.add = static_cast<float>(std::max(-static_cast<double>(kFar), std::min(static_cast<double>(kFar), sum)));
  std::memcpy(out + width_, &terms, sizeof(terms));
}

Probe Coder::encode_query(const float* query, float* rest, std::int8_t* codes) const { return {codes, side() * code(query, rest, codes)}; }

}  // namespace nf::codec
