// The exact answer over some of the rows: where few are allowed, where a bias moves the scores, and where the walk found fewer than k.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "graph/graph.h"
#include "graph/request.h"
#include "graph/skim.h"
#include "score/plan.h"

namespace nf::graph {

// The float64 score of a stored row, the one the exact scorer defines (score/scan.h), without bias.
double exact_score(const Graph& graph, const score::Query& query, std::uint32_t node);

// Queries begin..end, at most Skim::kQueries of them, over the same nodes, by exact score plus bias.
void scan(const Graph& graph, const codec::Coder& coder, const std::vector<score::Query>& queries, std::size_t begin, std::size_t end, const Choice& choice,
          const std::vector<std::uint32_t>& nodes, std::size_t k, Skim& skim, const Answer& answer);

}  // namespace nf::graph
