// Deletes mend the graph around them: a live node that names a deleted one gets the live neighbours that lay behind it, chosen as a new node's
// are. So live nodes name live nodes, and walks do not pass through more tombstones the more rows there ever were. (FreshDiskANN,
// arXiv 2105.09613, has the candidates; it collects deletes and mends once in a while.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "graph/graph.h"
#include "graph/scratch.h"

namespace nf::graph {

// Mends the lists that name these nodes, which must be marked as deleted: those that a walk around each finds, or all, when looking at all
// lists is no more work. Finds a new entry where it was deleted. What a walk missed stays, as a way through a tombstone. The result depends
// on graph and nodes alone. Should it throw (std::bad_alloc), some lists are mended, and the graph is as good as before.
void unlink(Graph& graph, const std::vector<std::uint64_t>& nodes, int threads, ScratchList& scratches);

// Mends every list of a live node: none names a deleted one afterwards.
void unlink_all(Graph& graph, int threads, ScratchList& scratches);

}  // namespace nf::graph
