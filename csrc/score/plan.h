// One query made ready: what the scan multiplies with, and how far a scanned score can be from the exact one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "base/metric.h"
#include "score/collector.h"

namespace nf::score {

struct Query {
  const float* raw = nullptr;   // as given: exact scores use it
  const float* scan = nullptr;  // what the float32 scan uses: the unit query for cosine, raw otherwise
  double norm = 0.0;            // |raw|
};

// Relative error of a float32 sum of dim products in any order, with room for the rounding of a normalized query, the float64
// arithmetic of the exact score and the bound's own arithmetic: n u / (1 - n u), n = dim + 8, u = 2^-24 (see kernels/dot_f32/contract.h).
inline double relative_error(std::size_t dim) {
  const double nu = static_cast<double>(dim + 8) * 0x1p-24;
  return nu / (1.0 - nu);
}

// What underflow may cost, also when the process flushes denormals to zero: each of dim products loses less than 2^-126 * (1 + |q| + |x|),
// times four for l2's square of a difference.
inline double underflow_error(std::size_t dim, double q_norm, double x_norm) {
  return static_cast<double>(dim) * 0x1p-124 * (1.0 + q_norm + x_norm);
}

// True when some intermediate value of the scan could leave float32's range (2^128), with a margin of four.
inline bool needs_float64(Metric metric, double q_norm, double x_norm) {
  if (metric == Metric::cosine) return false;
  return metric == Metric::ip ? q_norm * x_norm > 0x1p126 : q_norm + x_norm > 0x1p62;
}

// For one tile and query: turns a scanned value into an interval around the exact score.
struct Bound {
  double relative;  // times |value|: l2, whose terms are all non-negative
  double absolute;

  static Bound of(Metric metric, std::size_t dim, const Query& query, double x_norm) {
    const double q_norm = metric == Metric::cosine ? 1.0 : query.norm;
    const double underflow = underflow_error(dim, q_norm, x_norm);
    if (metric == Metric::l2) return {relative_error(dim) * 1.01, underflow};
    return {0.0, relative_error(dim) * 1.01 * q_norm * x_norm + underflow};
  }

  // For scores by kernels/dot_bf16 (not l2): its bound, on 32 dimensions more than float32's, and what the query's two parts leave out.
  static Bound of_halves(Metric metric, std::size_t dim, const Query& query, double x_norm) {
    const double q_norm = metric == Metric::cosine ? 1.0 : query.norm;
    return {0.0, (0x1p-16 + relative_error(dim + 32)) * 1.02 * q_norm * x_norm + 2.0 * underflow_error(dim, q_norm, x_norm)};
  }

  // `bias` is added in float64; its rounding (2^-53 of the larger term) is covered eightfold.
  Candidate around(double score, double bias, std::uint64_t slot) const {
    const double magnitude = score < 0 ? -score : score;
    const double slack = relative * magnitude + absolute + 0x1p-50 * (magnitude + (bias < 0 ? -bias : bias));
    if (!(slack <= std::numeric_limits<double>::max())) {  // infinity from a damaged row: anything is possible
      return {-std::numeric_limits<double>::infinity(), std::numeric_limits<double>::infinity(), slot};
    }
    return {score + bias - slack, score + bias + slack, slot};
  }

  // The smallest scanned score (without bias) whose interval can reach `threshold`, a little lower to cover this computation's rounding.
  double cut(double threshold) const {
    const double magnitude = threshold < 0 ? -threshold : threshold;
    return threshold - (2.0 * relative + 0x1p-40) * magnitude - 2.0 * absolute;
  }
};

}  // namespace nf::score
