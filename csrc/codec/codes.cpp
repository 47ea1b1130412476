#include "codec/codes.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "codec/quantize.h"

namespace nf::codec {
namespace {

constexpr double kFineSteps = 254.0;  // half a step of the first codes is 127 of the second

}  // namespace

// Codes of row - centre, which goes to `rest`; returns their scale.
float Coder::code(const float* row, float* rest, std::int8_t* codes) const {
  const float scale = scale_for(kernel_.rest(row, centre_, dim_, rest));
  if (scale >= std::numeric_limits<float>::min()) {
    kernel_.codes(rest, dim_, 1.0f / scale, codes);
  } else {
    quantize(rest, dim_, scale, codes);
  }
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

void Coder::encode_fine(const float* rest, float scale, const std::int8_t* codes, std::int8_t* fine) const {
  std::fill(fine, fine + width_, std::int8_t{0});
  if (scale == 0.0f) return;
  const float steps = static_cast<float>(kFineSteps) / scale;
  if (!(steps <= std::numeric_limits<float>::max())) return;  // a denormal scale: what is left is less than float32 holds
  // What is left is exact before it is scaled: both are multiples of one unit in the last place of rest, and it is small.
  kernel_.fine(rest, codes, dim_, scale, steps, fine);
}

double Coder::product(const FineCodes& a, const FineCodes& b) const {
  const std::int8_t* const rows[2] = {b.codes, b.fine};
  const std::size_t n = b.fine != nullptr ? 2 : 1;
  std::int32_t coarse[2] = {}, fine[2] = {};
  gather_(a.codes, rows, n, width_, coarse);
  gather_(a.fine, rows, n, width_, fine);
  const double small = static_cast<double>(coarse[1]) + fine[0] + fine[1] / kFineSteps;
  return static_cast<double>(a.scale) * static_cast<double>(b.scale) * (coarse[0] + small / kFineSteps);
}

void Coder::decode(const FineCodes& row, float* out) const {
  for (std::size_t i = 0; i < dim_; ++i) {
    const double code = row.codes[i] + (row.fine != nullptr ? row.fine[i] / kFineSteps : 0.0);
    out[i] = static_cast<float>(static_cast<double>(centre_[i]) + static_cast<double>(row.scale) * code);
  }
}

}  // namespace nf::codec
