#include "graph/stats.h"

#include "graph/reach.h"

namespace nf::graph {

Stats stats_of(const Graph& graph) {
  Stats stats;
  stats.nodes = graph.size();
  stats.live = graph.live();
  stats.degrees.resize(graph.capacity(0) + 1);
  for (std::uint32_t node = 0; node < graph.size(); ++node) {
    if (graph.deleted[node]) continue;
    const unsigned top = graph.levels[node];
    if (stats.levels.size() <= top) stats.levels.resize(top + 1);
    ++stats.levels[top];
    for (unsigned layer = 0; layer <= top; ++layer) {
      const Link* links = graph.links(node, layer);
      std::uint32_t degree = 0;
      for (; degree < graph.capacity(layer) && links[degree] != kNone; ++degree) stats.to_deleted += graph.deleted[links[degree]] ? 1 : 0;
      if (layer == 0) ++stats.degrees[degree];
    }
  }
  stats.unreached = count_unreached(graph);
  stats.rows_bytes = graph.rows.memory();
  stats.codes_bytes = graph.codes.memory();
  stats.links_bytes = graph.links0.memory() + graph.upper.memory();
  stats.other_bytes = graph.upper_first.memory() + graph.levels.memory() + graph.norms.memory() + graph.deleted.memory();
  return stats;
}

}  // namespace nf::graph
