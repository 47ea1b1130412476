#include "score/coded.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/rounding.h"
#include "codec/quantize.h"
#include "parallel/pool.h"

namespace nf::score {
namespace {

// Between these norms no product, scale or step of the scan leaves float32's normal range by more than kUnderflow covers.
constexpr double kMinNorm = 0x1p-40, kMaxNorm = 0x1p40;
constexpr double kUnderflow = 0x1p-70;
// Eight float32 roundings, each 2^-24 of a partial result, with room (kernels/scan_i8/contract.h).
constexpr double kFloatError = 0x1p-20;

// The nearest integer of a value below 2^51 in size, in two additions where the baseline's nearbyint is a call.
inline double rounded(double value) { return (value + 0x1.8p52) - 0x1.8p52; }

}  // namespace

CodedQueries::CodedQueries(Metric metric, std::size_t dim, const std::vector<Query>& queries, const kernels::ScanI8& kernel, int threads)
    : stride_((dim + kernels::kScanStride - 1) / kernels::kScanStride * kernels::kScanStride), each_(queries.size()) {
  const bool wide = kernel.code_max == kernels::kWideCodes;
  if (wide) {
    wide_ = AlignedBuffer<std::int16_t>(queries.size() * stride_);
    wide_.zero();
  } else {
    narrow_ = AlignedBuffer<std::int8_t>(queries.size() * stride_);
    narrow_.zero();
    low_ = AlignedBuffer<std::int8_t>(queries.size() * stride_);
    low_.zero();
  }
  // The kernel's int32 products stay exact: codes * 128 * code_max < 2^31.
  const double codes = static_cast<double>(codec::packed_groups(dim) * codec::kPackDims);
  const double code_max = std::min(static_cast<double>(kernel.code_max), std::floor((0x1p31 - 1.0) / (128.0 * codes)));
  for (std::size_t i = 0; i < queries.size(); ++i) {
    if (queries[i].norm == 0.0) continue;  // a zero query: every product is zero, exactly
    each_[i].norm = metric == Metric::cosine ? 1.0 : queries[i].norm;
    usable_ = usable_ && each_[i].norm >= kMinNorm && each_[i].norm <= kMaxNorm && code_max >= 1.0;
  }
  if (!usable_) return;
  raise_if_bad(parallel::parallel_for(queries.size(), threads, [&](std::size_t begin, std::size_t end, std::size_t) {
    for (std::size_t i = begin; i < end; ++i) {
      if (queries[i].norm != 0.0) encode(i, queries[i].raw, metric == Metric::cosine ? 1.0 / queries[i].norm : 1.0, dim, code_max);
    }
  }));
}

void CodedQueries::encode(std::size_t i, const float* row, double factor, std::size_t dim, double code_max) {
  CodedQuery& query = each_[i];
  const double peak = static_cast<double>(codec::peak_of(row, dim));
  query.step = peak * factor / code_max;
  const double low_step = query.step / static_cast<double>(kernels::kLowSteps), per_step = 1.0 / query.step, per_low = 1.0 / low_step;
  const bool wide = wide_.data() != nullptr;
  std::int16_t* const codes = wide ? wide_.data() + i * stride_ : nullptr;
  std::int8_t* const narrow = wide ? nullptr : narrow_.data() + i * stride_;
  std::int8_t* const low = wide ? nullptr : low_.data() + i * stride_;
  double coarse = 0.0, rest = 0.0;
  for (std::size_t j = 0; j < dim; ++j) {
    const double value = static_cast<double>(row[j]) * factor;
    const double code = std::min(std::max(rounded(value * per_step), -code_max), code_max);
    const std::int32_t whole = static_cast<std::int32_t>(code);
    query.code_sum += whole;
    double gap = value - query.step * code;
    coarse += gap * gap;
    if (wide) {
      codes[j] = static_cast<std::int16_t>(whole);
    } else {
      const double fine = std::min(std::max(rounded(gap * per_low), -code_max), code_max);
      narrow[j] = static_cast<std::int8_t>(whole);
      low[j] = static_cast<std::int8_t>(fine);
      query.low_sum += static_cast<std::int32_t>(fine);
      gap -= low_step * fine;
    }
    rest += gap * gap;
  }
  const double rounding = 0x1p-50 * query.norm;
  query.coarse = std::sqrt(coarse) * (1.0 + 0x1p-30) + rounding;
  query.residual = std::sqrt(rest) * (1.0 + 0x1p-30) + rounding;
}

kernels::ScanI8Queries CodedQueries::from(std::size_t first, std::size_t count, const kernels::ScanI8Query* each) const {
  const std::size_t place = first * stride_;
  if (wide_.data() != nullptr) return {wide_.data() + place, nullptr, nullptr, stride_, count, each};
  return {nullptr, narrow_.data() + place, low_.data() + place, stride_, count, each};
}

bool CodedBound::fits(double max_norm) { return max_norm <= kMaxNorm; }

// |s c| <= |x| + |e|: what the query's codes leave out costs |r| times the largest norm, and |r| |e| that goes with the row's error.
CodedBound::CodedBound(Metric metric, std::size_t dim, const CodedQuery& query, double max_norm)
    : squared_(metric == Metric::l2), factor_(squared_ ? 2.0 : 1.0), query_(query), max_norm_(max_norm) {
  const double scale = squared_ ? (query.norm + max_norm) * (query.norm + max_norm) : query.norm * max_norm;
  const double arithmetic = static_cast<double>(dim + 8) * 0x1p-50 * scale + kUnderflow;
  fixed_ = factor_ * query.residual * max_norm + arithmetic;
  coarse_ = factor_ * query.coarse * max_norm + arithmetic;
}

kernels::ScanI8Query CodedBound::probe(double threshold, const float* add, double max_add) const {
  // A row's error is at most its norm (rounding to a multiple never exceeds the value itself).
  const double largest = factor_ * (query_.norm + query_.coarse) * 4.0 * max_norm_ + max_add;
  const double beside = squared_ ? query_.norm * query_.norm : 0.0;
  const double cut = threshold + beside - kFloatError * largest - 0x1p-40 * (std::fabs(threshold) + beside) - kUnderflow;
  const double slack = factor_ * (query_.norm + query_.coarse) * (1.0 + 0x1p-20);
  return {static_cast<float>(factor_ * query_.step), rounded_up(slack), rounded_down(cut - coarse_), rounded_down(cut - fixed_), query_.code_sum,
          query_.low_sum, add};
}

Candidate CodedBound::around(const codec::PackedView& rows, const kernels::ScanI8Hit& hit, double bias, std::uint64_t slot) const {
  const std::size_t row = hit.row;
  const double product = hit.product + hit.low / static_cast<double>(kernels::kLowSteps);
  const double dot = factor_ * query_.step * static_cast<double>(rows.scale[row]) * product;
  const double square = squared_ ? static_cast<double>(rows.square[row]) : 0.0, own = squared_ ? query_.norm * query_.norm : 0.0;
  const double center = dot - square - own + bias;
  const double slack = factor_ * (query_.norm + query_.residual) * static_cast<double>(rows.error[row]) * (1.0 + 0x1p-30) + fixed_ + 0x1p-23 * square +
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
