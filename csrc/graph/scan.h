// The exact answer over some of the rows: where few are allowed, where a bias moves the scores, and where the walk found fewer than k.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "graph/graph.h"
#include "graph/scratch.h"
#include "score/plan.h"

namespace nf::graph {

// The float64 score of a stored row, the one the exact scorer defines (score/scan.h), without bias.
double exact_score(const Graph& graph, const score::Query& query, std::uint32_t node);

// Into scratch.scored: the k best of `nodes` by exact score plus bias (one value per node, or nullptr), best first. A float32 pass discards
// every row whose score cannot reach the k-th best even with the largest rounding error; what is left is scored in float64.
void scan(const Graph& graph, const Space& space, const score::Query& query, const std::vector<std::uint32_t>& nodes, const float* bias,
          std::size_t k, Scratch& scratch);

}  // namespace nf::graph
