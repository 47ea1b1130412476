#include "graph/scan.h"

#include <algorithm>

#include "score/collector.h"
#include "score/exact.h"

namespace nf::graph {
namespace {

constexpr std::size_t kBlock = 256;  // rows per call of the kernel; their pointers and distances stay in the first-level cache

}  // namespace

double exact_score(const Graph& graph, const score::Query& query, std::uint32_t node) {
  return score::exact_score(graph.params.metric, query, graph.rows[node], graph.params.dim);
}

void scan(const Graph& graph, const Space& space, const score::Query& query, const std::vector<std::uint32_t>& nodes, const float* bias,
          std::size_t k, Scratch& scratch) {
  const auto bias_of = [&](std::uint64_t node) { return bias != nullptr ? static_cast<double>(bias[node]) : 0.0; };
  const score::ExactScore exact = [&](std::uint64_t node) { return exact_score(graph, query, static_cast<std::uint32_t>(node)) + bias_of(node); };
  score::Collector collector(std::min(k, std::max<std::size_t>(1, nodes.size())));
  scratch.reserve_rows(kBlock);
  for (std::size_t begin = 0; begin < nodes.size(); begin += kBlock) {
    const std::size_t n = std::min(kBlock, nodes.size() - begin);
    for (std::size_t i = 0; i < n; ++i) scratch.rows[i] = graph.rows[nodes[begin + i]];
    space.distances(query.scan, scratch.rows.data(), n, scratch.distances.data());
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint32_t node = nodes[begin + i];
      const double norm = graph.norms[node];
      if (score::needs_float64(graph.params.metric, query.norm, norm)) {
        const double score = exact(node);
        collector.offer({score, score, node}, exact);
      } else {
        const auto bound = score::Bound::of(graph.params.metric, graph.params.dim, query, norm);
        collector.offer(bound.around(-scratch.distances[i], bias_of(node), node), exact);
      }
    }
  }
  scratch.scored.clear();
  for (const score::Candidate& row : collector.finish(exact)) scratch.scored.push_back({row.lower, static_cast<std::uint32_t>(row.slot)});
}

}  // namespace nf::graph
