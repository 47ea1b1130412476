// Insertion in batches, with the same graph as result for any number of threads.
//
// A batch is as many nodes as the graph already holds, at most kMaxBatch. First every node of the batch looks for its neighbours in the
// graph as it was before the batch, in parallel, and among the nodes before it in the batch, all of them: so each node sees exactly the
// nodes that it would see if nodes came one by one (algorithm 1 of the paper), and recall does not pay for the parallelism. Then the
// nodes that were chosen link back, each target's list by one thread, in the order of the sources.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "graph/graph.h"
#include "graph/scratch.h"

namespace nf::graph {

// A node is compared with 128 others of its batch on average: some 5 % of the distances that its insertion costs at ef_construction = 200.
constexpr std::size_t kMaxBatch = 256;

// `source` is to stand in the list of `target`.
struct BackLink {
  unsigned layer;
  std::uint32_t target;
  std::uint32_t source;
};

// Adds sources to the lists of their targets, which do not name them yet; lists that overflow are thinned by the heuristic. Sorts the links; the
// result does not depend on their order, or on the threads. Allocates before it changes anything.
void link_back_all(Graph& graph, std::vector<BackLink>& links, int threads, ScratchList& scratches);

// Links the nodes from `first` on, which append() made. Should it throw (std::bad_alloc), some of them are linked, and the others have empty lists
// and stand in none.
void link_nodes(Graph& graph, std::size_t first, int threads, ScratchList& scratches);

}  // namespace nf::graph
