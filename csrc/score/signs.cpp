#include "score/signs.h"

#include <algorithm>
#include <cmath>

#include "base/rounding.h"
#include "score/door.h"

namespace nf::score {
namespace {

using kernels::kSignGroupBytes;
using kernels::kSignGroupDims;

// As for the int8 scan (score/coded.cpp): the norms at which float32 neither overflows nor loses more than kUnderflow, and six roundings with room.
constexpr double kMaxNorm = 0x1p40, kUnderflow = 0x1p-70, kFloatError = 0x1p-20;
// Largest sum of a scan: 16 bits.
constexpr double kMaxSum = 65535.0;

// Of the four values from `from` on (zero beyond `dim`), the sums under all patterns of signs; bit i set is +.
void signed_sums(const float* values, std::size_t from, std::size_t dim, double* sums) {
  double each[kSignGroupDims] = {};
  for (std::size_t i = 0; i < kSignGroupDims && from + i < dim; ++i) each[i] = static_cast<double>(values[from + i]);
  for (std::size_t pattern = 0; pattern < kSignGroupBytes; ++pattern) {
    sums[pattern] = 0.0;
    for (std::size_t i = 0; i < kSignGroupDims; ++i) sums[pattern] += (pattern >> i & 1) != 0 ? each[i] : -each[i];
  }
}

}  // namespace

// One coordinate has the density  c (1 - u^2)^(x - 1)  with x = (n - 1) / 2 and c = gamma(x + 1/2) / (sqrt(pi) gamma(x)), which is at most
// sqrt(x / pi) (Gautschi, 1959). Beyond r the density is at most u / r times itself, and that integrates to  c (1 - r^2)^x / (2 x r).
double sphere_reach(std::size_t dims, double chance) {
  const double kPi = 3.141592653589793, x = (static_cast<double>(dims) - 1.0) / 2.0;
  double low = 0.0, high = 1.0;
  for (int step = 0; step < 60; ++step) {
    const double middle = (low + high) / 2;
    const double log_tail = 0.5 * std::log(x / kPi) + x * std::log1p(-middle * middle) - std::log(2.0 * x * middle);
    (log_tail > std::log(chance) ? low : high) = middle;
  }
  return high;
}

SignQueries::SignQueries(const FirstPass& pass, Metric metric, std::size_t dim, const std::vector<Query>& queries, double guarantee, std::size_t k)
    : metric_(metric),
      dim_(dim),
      groups_(codec::sign_groups(dim)),
      reach_(sphere_reach(dim - 1, 0.99 * (1.0 - guarantee) / static_cast<double>(k))),
      each_(queries.size()),
      tables_(queries.size() * groups_ * kSignGroupBytes) {
  tables_.zero();
  std::vector<float> p(dim), rotated(dim);
  usable_ = dot64(pass.centre(), pass.centre(), dim) <= kMaxNorm * kMaxNorm;
  for (std::size_t i = 0; i < queries.size() && usable_; ++i) {
    const float* const q = queries[i].scan;
    each_[i].norm = metric == Metric::cosine ? 1.0 : queries[i].norm;
    usable_ = each_[i].norm <= kMaxNorm;
    if (!usable_) return;
    for (std::size_t j = 0; j < dim; ++j) p[j] = static_cast<float>(static_cast<double>(q[j]) - static_cast<double>(pass.centre()[j]));
    const double square = dot64(p.data(), p.data(), dim);
    each_[i].rest = metric == Metric::l2 ? -square * (1.0 - 0x1p-22) : dot64(q, pass.centre(), dim);
    pass.rotation().apply(p.data(), 1, rotated.data());
    encode(i, rotated.data(), std::sqrt(square));
  }
}

void SignQueries::encode(std::size_t i, const float* rotated, double norm) {
  std::uint8_t* const tables = tables_.data() + i * groups_ * kSignGroupBytes;
  double sums[kSignGroupBytes], widest = 0.0, total = 0.0;
  for (std::size_t g = 0; g < groups_; ++g) {
    signed_sums(rotated, g * kSignGroupDims, dim_, sums);
    const double most = *std::max_element(sums, sums + kSignGroupBytes);
    widest = std::max(widest, 2.0 * most);
    total += most;
  }
  const double step = widest / std::min(255.0, std::floor(kMaxSum / static_cast<double>(groups_)));
  double doubt = 0.0;
  for (std::size_t g = 0; g < groups_ && step > 0.0; ++g) {
    signed_sums(rotated, g * kSignGroupDims, dim_, sums);
    const double least = *std::min_element(sums, sums + kSignGroupBytes);
    double worst = 0.0;
    for (std::size_t j = 0; j < kSignGroupBytes; ++j) {
      const double entry = std::nearbyint((sums[j] - least) / step);
      tables[g * kSignGroupBytes + j] = static_cast<std::uint8_t>(entry);
      worst = std::max(worst, std::fabs(sums[j] - (least + step * entry)));
    }
    doubt += worst;
  }
  // Each rotated value is off by at most relative_error |p|, a row's likewise by |v|: sqrt(D) of the former and, through the row's factor, at
  // most twice that of the latter, for a is at least 1/2; the fourth part covers the differences from the centre, rounded to float32.
  const double dim = static_cast<double>(dim_), rounding = 4.0 * dim * relative_error(dim_) * norm, times = metric_ == Metric::l2 ? 2.0 : 1.0;
  One& one = each_[i];
  one.step = times * step;
  one.shift = times * (doubt + rounding - total);
  one.slack = times * reach_ * norm * (1.0 + 0x1p-20);
  one.peak = times * (4.0 * total + doubt + rounding);
}

kernels::Scan1BitQuery SignQueries::probe(std::size_t i, double threshold, const SignTile& tile, double max_norm, const float* add, double max_add) const {
  const One& one = each_[i];
  const double largest = one.peak * static_cast<double>(tile.max_factor) + one.slack * static_cast<double>(tile.max_error) + max_add;
  // A cosine query was rounded to float32 after it was normalized: 2^-24 of its length.
  const double fixed = 0x1p-22 * (metric_ == Metric::cosine ? one.norm * max_norm : 0.0) + 0x1p-40 * (std::fabs(threshold) + std::fabs(one.rest));
  const double cut = threshold - one.rest - fixed - kFloatError * largest - kUnderflow;
  return {tables_.data() + i * groups_ * kSignGroupBytes, static_cast<float>(one.step), static_cast<float>(one.shift), rounded_up(one.slack),
          rounded_down(cut), add};
}

}  // namespace nf::score
