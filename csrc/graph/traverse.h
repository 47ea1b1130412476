// Walking the graph by its codes: algorithm 2 of the paper (SEARCH-LAYER) and the greedy descent through the layers above (algorithm 5,
// lines 4-6).
#pragma once

#include <cstddef>
#include <cstdint>

#include "graph/graph.h"
#include "graph/request.h"
#include "graph/scratch.h"

namespace nf::graph {

// What a walk measures from, and with, and how much of the graph it sees: nodes below `passable`, from `entry` on,
// all but `skipped`.
struct From {
  const codec::Coder& coder;
  codec::Probe probe;
  std::size_t passable;
  std::uint32_t entry;
  std::uint32_t skipped = kNone;
};

// The writer's own walks see all there is.
inline From from_node(const Graph& graph, const codec::Coder& coder, std::uint32_t node) {
  return {coder, coder.probe_of(graph.codes[node]), graph.size(), graph.entry, kNone};
}

// A query's codes, which lie in the scratch.
codec::Probe probe_of(const codec::Coder& coder, const float* query, Scratch& scratch);

// The node nearest to the query that a greedy walk finds from the entry (there must be one) down to layer `stop`, not searching `stop` itself.
Candidate descend(const Graph& graph, const From& from, unsigned stop, Scratch& scratch);

// SEARCH-LAYER from the nodes in scratch.best, whose distances are known. On return scratch.best holds, nearest first, at most `ef` kept
// nodes; the walk ends when the nearest node not yet looked at is farther than all `ef` of them, or when no node is left.
void search_layer(const Graph& graph, const From& from, unsigned layer, std::size_t ef, const Keep& keep, Scratch& scratch);

// The same over layer 0 and the kept nodes alone, two links at a time (graph/hops.h).
void search_kept(const Graph& graph, const From& from, std::size_t ef, const Keep& keep, Scratch& scratch);

}  // namespace nf::graph
