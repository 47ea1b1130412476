// Every live node can be reached: checked by walking all links of layer 0 from the entry, and mended.
//
// Shrinking lists leaves some nodes that no list names, or groups that only name each other: rows added much later than their
// neighbours, and many equal rows. Such a row could never be found (arXiv 2407.07871 measures it for other HNSW libraries).
#pragma once

#include <cstddef>

#include "graph/graph.h"
#include "graph/scratch.h"

namespace nf::graph {

// How many live nodes cannot be reached from the entry along layer 0.
std::size_t count_unreached(const Graph& graph);

// Links each of them to the nearest node that can be reached and has a free place, or a link that no other node depends on, which is replaced.
// Returns how many links it made. The result depends on the graph alone.
std::size_t connect(Graph& graph, ScratchList& scratches);

}  // namespace nf::graph
