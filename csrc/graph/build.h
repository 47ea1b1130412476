// Insertion in batches, with the same graph as result for any number of threads.
//
// A batch is as many nodes as the graph already holds, at most kMaxBatch. First every node of the batch looks for its neighbours in the
// graph as it was before the batch, in parallel, and among the nodes before it in the batch, all of them: so each node sees exactly the
// nodes that it would see if nodes came one by one (algorithm 1 of the paper), and recall does not pay for the parallelism. Then the
// nodes that were chosen link back, each target's list by one thread, in the order of the sources.
#pragma once

#include <cstddef>

#include "graph/graph.h"
#include "graph/scratch.h"

namespace nf::graph {

// A node is compared with 128 others of its batch on average: some 5 % of the distances that its insertion costs at ef_construction = 200.
constexpr std::size_t kMaxBatch = 256;

// Links the nodes from `first` on, which append() made. Should it throw (std::bad_alloc), the nodes before `linked` are in the graph and no
// list names the others.
void link_nodes(Graph& graph, std::size_t first, int threads, ScratchList& scratches, std::size_t& linked);

}  // namespace nf::graph
