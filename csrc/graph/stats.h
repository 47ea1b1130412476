// What a graph is like: for people who wonder why an index is slow or large.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "graph/graph.h"

namespace nf::graph {

struct Stats {
  std::size_t nodes = 0, live = 0;
  std::vector<std::uint64_t> degrees;  // live nodes with 0, 1, ... neighbours on layer 0
  std::vector<std::uint64_t> levels;   // live nodes whose highest layer is 0, 1, ...
  std::size_t to_deleted = 0;          // links of live nodes, on any layer, that lead to a deleted one
  std::size_t unreached = 0;           // live nodes that no way from the entry leads to
  std::size_t rows_bytes = 0, codes_bytes = 0, links_bytes = 0, other_bytes = 0;  // memory taken, what is kept for further rows included
};

Stats stats_of(const Graph& graph);

}  // namespace nf::graph
