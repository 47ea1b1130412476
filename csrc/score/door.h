// What every vector passes on its way in: NaN, infinity and norms beyond float32 are refused; cosine rows become unit rows.
#pragma once

#include <cstddef>
#include <string>

#include "base/metric.h"
#include "base/status.h"
#include "base/view.h"

namespace nf::score {

// Inner product, squared norm and squared distance in float64: products of float32 values are exact there, and the sum runs over
// eight lanes (element i in lane i mod 8) added by a fixed tree, so every call with the same values gives the same bits.
double dot64(const float* q, const float* r, std::size_t dim);
double l2sqr64(const float* q, const float* r, std::size_t dim);

// The Euclidean norm of a row that may enter. Throws InputError "<what>: row <index> ..." otherwise.
double checked_norm(const float* row, std::size_t dim, const std::string& what, std::size_t index);

// out = row / norm in float64, rounded once to float32; a zero vector stays zero.
void normalize(const float* row, std::size_t dim, double norm, float* out);

}  // namespace nf::score
