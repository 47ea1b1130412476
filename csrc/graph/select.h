// Algorithm 4 of the paper (SELECT-NEIGHBORS-HEURISTIC).
#pragma once

#include <cstddef>

#include "graph/graph.h"
#include "graph/scratch.h"

namespace nf::graph {

// Chooses neighbours of `base`, at most `most` of scratch.candidates (which it sorts) into scratch.chosen: from the nearest on, a candidate is taken unless an
// already chosen one is nearer to it than the base is. So the links point in different directions, and clusters stay connected.
// With params.alpha above 1 it must be nearer by that factor, as in Vamana's RobustPrune (Subramanya et al., "DiskANN", NeurIPS 2019): more and longer
// lists. When there are no more candidates than places, all are taken. Neither extendCandidates nor keepPrunedConnections of the paper: both add
// distance computations, to the build and to every search.
void select_neighbours(const Graph& graph, const codec::Coder& coder, std::uint32_t base, std::size_t most, Scratch& scratch);

// The same for a list of which some links stay: these are in scratch.chosen already. When the heuristic takes fewer than `least` in all, the nearest of the
// others follow: a list that grew link by link was never thinned so far, and a walk needs its width.
void add_neighbours(const Graph& graph, const codec::Coder& coder, std::uint32_t base, std::size_t least, std::size_t most, Scratch& scratch);

}  // namespace nf::graph
