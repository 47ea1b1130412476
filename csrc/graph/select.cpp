#include "graph/select.h"

#include <algorithm>

namespace nf::graph {
namespace {

// Chosen rows are compared by eights, the width of the distance kernel; most candidates fall within the first eight.
constexpr std::size_t kGroup = 8;

bool nearer_to_a_chosen_one(const Graph& graph, const Space& space, const Candidate& candidate, Scratch& scratch) {
  const float* row = graph.rows[candidate.node];
  const auto& chosen = scratch.chosen;
  for (std::size_t begin = 0; begin < chosen.size(); begin += kGroup) {
    const std::size_t n = std::min(kGroup, chosen.size() - begin);
    for (std::size_t i = 0; i < n; ++i) scratch.rows[i] = graph.rows[chosen[begin + i]];
    space.distances(row, scratch.rows.data(), n, scratch.distances.data());
    for (std::size_t i = 0; i < n; ++i) {
      // Strictly: of several equal rows all are taken, or each but one would lose its links.
      if (scratch.distances[i] < candidate.distance) return true;
    }
  }
  return false;
}

}  // namespace

void select_neighbours(const Graph& graph, const Space& space, std::size_t most, Scratch& scratch) {
  scratch.reserve_rows(kGroup);
  std::sort(scratch.candidates.begin(), scratch.candidates.end(), nearer);
  scratch.chosen.clear();
  const bool all = scratch.candidates.size() <= most;
  for (const Candidate& candidate : scratch.candidates) {
    if (scratch.chosen.size() >= most) break;
    if (all || !nearer_to_a_chosen_one(graph, space, candidate, scratch)) scratch.chosen.push_back(candidate.node);
  }
}

}  // namespace nf::graph
