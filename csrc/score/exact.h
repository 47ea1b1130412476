// The score that every exact answer reports, whoever asks for it: one definition, so that the same query and row give the same bits.
#pragma once

#include <cstddef>

#include "base/metric.h"
#include "score/door.h"
#include "score/plan.h"

namespace nf::score {

// In float64, without bias: cosine (q . x) / |q| (0 for a zero query), ip q . x, l2 -|q - x|^2. Never -0: subtracting from 0 leaves a
// distance of 0 as 0.
inline double exact_score(Metric metric, const Query& query, const float* row, std::size_t dim) {
  switch (metric) {
    case Metric::cosine: return query.norm == 0.0 ? 0.0 : dot64(query.raw, row, dim) / query.norm;
    case Metric::ip: return dot64(query.raw, row, dim);
    case Metric::l2: return 0.0 - l2sqr64(query.raw, row, dim);
  }
  return 0.0;
}

}  // namespace nf::score
