// Scores and top-k over a matrix that stays the caller's.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/metric.h"
#include "base/view.h"
#include "score/scan.h"

namespace nf::score {

// out[i * rows.rows + j] = the score of query i with row j, from the float32 kernels (for their error see kernels/*/contract.h; cosine adds the
// rounding of both unit vectors, 2^-23 in all); in float64, rounded once, where float32 would overflow.
// Throws InputError "queries: row ..." or "vectors: row ..." for NaN, infinity or a norm beyond float32.
void score_matrix(Metric metric, MatrixView<float> queries, MatrixView<float> rows, int threads, float* out);

// The exact k best rows of each query, as scan.h defines them; cosine copies the rows once to normalize them.
void topk(Metric metric, MatrixView<float> queries, MatrixView<float> rows, std::size_t k, int threads, std::int64_t* slots, float* scores,
          std::int64_t* counts);

}  // namespace nf::score
