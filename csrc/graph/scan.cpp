#include "graph/scan.h"

#include <algorithm>

#include "score/exact.h"
#include "score/gather.h"

namespace nf::graph {

double exact_score(const Graph& graph, const score::Query& query, std::uint32_t node) {
  return score::exact_score(graph.params.metric, query, graph.rows[node], graph.params.dim);
}

void scan(const Graph& graph, const codec::Coder& coder, const std::vector<score::Query>& queries, std::size_t begin, std::size_t end, const Choice& choice,
          const std::vector<std::uint32_t>& nodes, std::size_t k, Skim& skim, const Answer& answer) {
  skim.begin(coder, graph.params.metric, std::min(k, std::max<std::size_t>(1, nodes.size())));
  for (std::size_t at = begin; at < end; ++at) skim.add(queries[at], choice.bias(at));
  const auto exact = [&](std::size_t query, std::uint32_t node) { return exact_score(graph, queries[begin + query], node); };
  skim.over(nodes, [&](std::uint32_t node) { return graph.codes[node]; }, exact);
  const auto ask_for = [&](std::uint32_t node) { score::prefetch_lines(graph.rows[node], graph.params.dim * sizeof(float)); };
  for (std::size_t at = begin; at < end; ++at) {
    answer.write(skim.best(at - begin, [&](std::uint32_t node) { return exact(at - begin, node); }, ask_for), at, k);
  }
}

}  // namespace nf::graph
