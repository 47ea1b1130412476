#include "score/coded.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/rounding.h"

namespace nf::score {
namespace {

// Between these norms no product, scale or step of the scan leaves float32's normal range by more than kUnderflow covers.
constexpr double kMinNorm = 0x1p-40, kMaxNorm = 0x1p40;
constexpr double kUnderflow = 0x1p-70;
// Five float32 roundings, each 2^-24 of a partial result, with room (kernels/scan_i8/contract.h).
constexpr double kFloatError = 0x1p-20;

}  // namespace

CodedQueries::CodedQueries(Metric metric, std::size_t dim, const std::vector<Query>& queries)
    : stride_(codec::packed_groups(dim) * codec::kPackDims), each_(queries.size()), codes_(queries.size() * stride_) {
  codes_.zero();
  // The kernel's int32 sums stay exact: stride * 128 * code_max < 2^31.
  const double code_max = std::min(32767.0, std::floor((0x1p31 - 1.0) / (128.0 * static_cast<double>(stride_))));
  for (std::size_t i = 0; i < queries.size(); ++i) {
    const bool unit = metric == Metric::cosine;
    if (queries[i].norm == 0.0) continue;  // a zero query: every product is zero, exactly
    each_[i].norm = unit ? 1.0 : queries[i].norm;
    usable_ = usable_ && each_[i].norm >= kMinNorm && each_[i].norm <= kMaxNorm;
    if (usable_) encode(i, queries[i].raw, unit ? 1.0 / queries[i].norm : 1.0, dim, code_max);
  }
}

void CodedQueries::encode(std::size_t i, const float* row, double factor, std::size_t dim, double code_max) {
  double peak = 0.0;
  for (std::size_t j = 0; j < dim; ++j) peak = std::max(peak, std::fabs(static_cast<double>(row[j])));
  const double step = peak * factor / code_max;
  double rest = 0.0;
  for (std::size_t j = 0; j < dim; ++j) {
    const double value = static_cast<double>(row[j]) * factor;
    const double code = std::nearbyint(value / step);
    codes_[i * stride_ + j] = static_cast<std::int16_t>(std::min(std::max(code, -code_max), code_max));
    const double gap = value - step * codes_[i * stride_ + j];
    rest += gap * gap;
  }
  each_[i].step = step;
  each_[i].residual = std::sqrt(rest) * (1.0 + 0x1p-30) + 0x1p-50 * each_[i].norm;
}

bool CodedBound::fits(double max_norm) { return max_norm <= kMaxNorm; }

// A row's error is at most its norm (rounding to a multiple never exceeds the value itself), so |s c| <= 2 |x|.
CodedBound::CodedBound(Metric metric, std::size_t dim, const CodedQuery& query, double max_norm)
    : squared_(metric == Metric::l2), factor_(squared_ ? 2.0 : 1.0), query_(query), max_norm_(max_norm) {
  const double scale = squared_ ? (query.norm + max_norm) * (query.norm + max_norm) : query.norm * max_norm;
  fixed_ = factor_ * query.residual * 2.0 * max_norm + static_cast<double>(dim + 8) * 0x1p-50 * scale + kUnderflow;
}

kernels::ScanI8Query CodedBound::probe(const std::int16_t* codes, double threshold, const float* add, double max_add) const {
  const double largest = factor_ * (query_.norm + query_.residual) * 3.0 * max_norm_ + max_add;
  const double beside = squared_ ? query_.norm * query_.norm : 0.0;
  const double cut = threshold + beside - fixed_ - kFloatError * largest - 0x1p-40 * (std::fabs(threshold) + beside) - kUnderflow;
  return {codes, static_cast<float>(factor_ * query_.step), rounded_up(factor_ * query_.norm * (1.0 + 0x1p-20)), rounded_down(cut), add};
}

Candidate CodedBound::around(const codec::PackedView& rows, std::size_t row, std::int32_t product, double bias, std::uint64_t slot) const {
  const double dot = factor_ * query_.step * static_cast<double>(rows.scale[row]) * product;
  const double square = squared_ ? static_cast<double>(rows.square[row]) : 0.0, own = squared_ ? query_.norm * query_.norm : 0.0;
  const double center = dot - square - own + bias;
  const double slack = factor_ * query_.norm * static_cast<double>(rows.error[row]) * (1.0 + 0x1p-30) + fixed_ + 0x1p-23 * square +
                       0x1p-50 * (std::fabs(dot) + square + own + std::fabs(bias));
  if (!(slack <= std::numeric_limits<double>::max())) {  // codes of a damaged file opened without verification
    return {-std::numeric_limits<double>::infinity(), std::numeric_limits<double>::infinity(), slot};
  }
  return {center - slack, center + slack, slot};
}

double add_terms(Metric metric, const codec::PackedView& rows, const float* bias, std::size_t count, float* out) {
  double largest = 0.0;
  for (std::size_t j = 0; j < count; ++j) {
    const double square = metric == Metric::l2 ? static_cast<double>(rows.square[j]) : 0.0;
    const double given = bias != nullptr ? static_cast<double>(bias[j]) : 0.0;
    out[j] = static_cast<float>(given - square);
    largest = std::max(largest, square + std::fabs(given));
  }
  return largest;
}

}  // namespace nf::score
