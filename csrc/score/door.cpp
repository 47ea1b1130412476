#include "score/door.h"

#include <cmath>
#include <limits>

namespace nf::score {
namespace {

constexpr std::size_t kLanes = 8;

double sum_lanes(const double* lane) { return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7])); }

}  // namespace

double dot64(const float* q, const float* r, std::size_t dim) {
  double lane[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) {
    for (std::size_t j = 0; j < kLanes; ++j) lane[j] += static_cast<double>(q[i + j]) * static_cast<double>(r[i + j]);
  }
  for (std::size_t j = 0; i + j < dim; ++j) lane[j] += static_cast<double>(q[i + j]) * static_cast<double>(r[i + j]);
  return sum_lanes(lane);
}

double l2sqr64(const float* q, const float* r, std::size_t dim) {
  double lane[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) {
    for (std::size_t j = 0; j < kLanes; ++j) {
      const double gap = static_cast<double>(q[i + j]) - static_cast<double>(r[i + j]);
      lane[j] += gap * gap;
    }
  }
  for (std::size_t j = 0; i + j < dim; ++j) {
    const double gap = static_cast<double>(q[i + j]) - static_cast<double>(r[i + j]);
    lane[j] += gap * gap;
  }
  return sum_lanes(lane);
}

double checked_norm(const float* row, std::size_t dim, const std::string& what, std::size_t index) {
  const double norm = std::sqrt(dot64(row, row, dim));  // squares of float32 values cannot overflow float64
  if (norm <= static_cast<double>(std::numeric_limits<float>::max())) return norm;
  for (std::size_t i = 0; i < dim; ++i) {
    if (!std::isfinite(row[i])) {
      throw InputError(what + ": row " + std::to_string(index) + " holds " + (std::isnan(row[i]) ? "NaN" : "infinity") + " in column " + std::to_string(i) +
                       ", finite values expected: leave the row out or repair it");
    }
  }
  throw InputError(what + ": row " + std::to_string(index) + " has a norm beyond float32 (3.4e38): scale the vectors down");
}

void normalize(const float* row, std::size_t dim, double norm, float* out) {
  for (std::size_t i = 0; i < dim; ++i) out[i] = norm == 0.0 ? 0.0f : static_cast<float>(static_cast<double>(row[i]) / norm);
}

}  // namespace nf::score
