#include "graph/select.h"

#include <algorithm>

namespace nf::graph {
namespace {

// Chosen rows are compared by fours, as the distance kernel takes them; most candidates fall to one of the first four.
constexpr std::size_t kGroup = 4;

// What alpha adds: alpha |a - b| < |c - b| for the candidate b reads, in squares,  |a - b|^2 + (alpha^2 - 1) |a - b|^2 < |c - b|^2, and l2's distances
// are squares. The others' are less half a square, up to terms of one row: half the sum of the rows' squares is added for those of equal length, and
// for others the factor is of the distance between them all the same.
struct Margin {
  Margin(const Graph& graph, const codec::Coder& coder) : share(graph.params.alpha * graph.params.alpha - 1.0f), l2(graph.params.metric == Metric::l2) {
    if (share == 0.0f || l2) return;
    for (std::size_t i = 0; i < coder.dim(); ++i) centre += graph.centre[i] * graph.centre[i];
  }

  // `distance` with both rows' `add`: squared, or -a . b + centre . centre.
  float of(const Graph& graph, std::uint32_t a, std::uint32_t b, float distance) const {
    if (share == 0.0f) return 0.0f;
    const float half = 0.5f * (graph.norms[a] * graph.norms[a] + graph.norms[b] * graph.norms[b]);
    const float square = l2 ? distance : half + (distance - centre);
    return share * std::max(0.0f, square);
  }

  float share, centre = 0.0f;
  bool l2;
};

// Distances from a node's codes lack the node's own `add` (codec/codes.h): candidate and base differ in it.
bool nearer_to_a_chosen_one(const Graph& graph, const codec::Coder& coder, const Margin& margin, const Candidate& candidate, float base_add,
                            Scratch& scratch) {
  const std::int8_t* row = graph.codes[candidate.node];
  const codec::Probe probe = coder.probe_of(row);
  const float own_add = codec::terms_of(row, coder.width()).add;
  const auto& chosen = scratch.chosen;
  for (std::size_t begin = 0; begin < chosen.size(); begin += kGroup) {
    const std::size_t n = std::min(kGroup, chosen.size() - begin);
    for (std::size_t i = 0; i < n; ++i) scratch.coded[i] = graph.codes[chosen[begin + i]];
    coder.distances(probe, scratch.coded.data(), n, scratch.products.data(), scratch.distances.data());
    for (std::size_t i = 0; i < n; ++i) {
      // Strictly: of several equal rows all are taken, or each but one would lose its links.
      const float distance = scratch.distances[i] + own_add;
      if (distance + margin.of(graph, candidate.node, chosen[begin + i], distance) < candidate.distance + base_add) return true;
    }
  }
  return false;
}

}  // namespace

void select_neighbours(const Graph& graph, const codec::Coder& coder, std::uint32_t base, std::size_t most, Scratch& scratch) {
  scratch.reserve_rows(kGroup);
  std::sort(scratch.candidates.begin(), scratch.candidates.end(), nearer);
  scratch.chosen.clear();
  const float base_add = codec::terms_of(graph.codes[base], coder.width()).add;
  const Margin margin(graph, coder);
  const bool all = scratch.candidates.size() <= most;
  for (const Candidate& candidate : scratch.candidates) {
    if (scratch.chosen.size() >= most) break;
    if (all || !nearer_to_a_chosen_one(graph, coder, margin, candidate, base_add, scratch)) scratch.chosen.push_back(candidate.node);
  }
}

void add_neighbours(const Graph& graph, const codec::Coder& coder, std::uint32_t base, std::size_t least, std::size_t most, Scratch& scratch) {
  scratch.reserve_rows(kGroup);
  auto& candidates = scratch.candidates;
  std::sort(candidates.begin(), candidates.end(), nearer);
  const float base_add = codec::terms_of(graph.codes[base], coder.width()).add;
  const Margin margin(graph, coder);
  std::size_t refused = 0;
  for (std::size_t i = 0; i < candidates.size() && scratch.chosen.size() < most; ++i) {
    if (nearer_to_a_chosen_one(graph, coder, margin, candidates[i], base_add, scratch)) {
      candidates[refused++] = candidates[i];
    } else {
      scratch.chosen.push_back(candidates[i].node);
    }
  }
  for (std::size_t i = 0; i < refused && scratch.chosen.size() < std::min(least, most); ++i) scratch.chosen.push_back(candidates[i].node);
}

}  // namespace nf::graph
