#include "graph/traverse.h"

#include <algorithm>

namespace nf::graph {
namespace {

// The first lines of each row to come: the hardware follows from there. 2 of 24 lines at 384 dimensions; more of them evict each other.
constexpr std::size_t kPrefetchLines = 2;

inline void prefetch_row(const float* row) {
  const char* line = reinterpret_cast<const char*>(row);
  for (std::size_t i = 0; i < kPrefetchLines; ++i) __builtin_prefetch(line + i * Chunked<float>::kLine);
}

struct KeepAll {
  bool operator()(std::uint32_t) const { return true; }
};

// Puts the unvisited neighbours of a node in scratch.fresh and their distances in scratch.distances; returns how many.
std::size_t look_around(const Graph& graph, const Space& space, const float* q, std::uint32_t node, unsigned layer, Scratch& scratch) {
  const std::uint32_t* links = graph.links(node, layer);
  const std::uint32_t capacity = graph.capacity(layer);
  std::size_t n = 0;
  for (std::uint32_t i = 0; i < capacity && links[i] != kNone; ++i) {
    if (!scratch.visited.insert(links[i])) continue;
    const float* row = graph.rows[links[i]];
    prefetch_row(row);
    scratch.fresh[n] = links[i];
    scratch.rows[n++] = row;
  }
  if (n > 0) space.distances(q, scratch.rows.data(), n, scratch.distances.data());
  return n;
}

template <typename IsKept>
void walk(const Graph& graph, const Space& space, const float* q, unsigned layer, std::size_t ef, const IsKept& kept, Scratch& scratch) {
  auto& frontier = scratch.frontier;
  auto& best = scratch.best;
  while (!frontier.empty()) {
    const Candidate current = frontier.front();
    if (best.size() >= ef && nearer(best.front(), current)) break;
    std::pop_heap(frontier.begin(), frontier.end(), farther);
    frontier.pop_back();
    if (!frontier.empty()) __builtin_prefetch(graph.links(frontier.front().node, layer));
    const std::size_t n = look_around(graph, space, q, current.node, layer, scratch);
    for (std::size_t i = 0; i < n; ++i) {
      const Candidate found{scratch.distances[i], scratch.fresh[i]};
      if (best.size() >= ef && !nearer(found, best.front())) continue;
      frontier.push_back(found);
      std::push_heap(frontier.begin(), frontier.end(), farther);
      if (!kept(found.node)) continue;
      best.push_back(found);
      std::push_heap(best.begin(), best.end(), nearer);
      if (best.size() > ef) {
        std::pop_heap(best.begin(), best.end(), nearer);
        best.pop_back();
      }
    }
  }
}

}  // namespace

Candidate descend(const Graph& graph, const Space& space, const float* q, unsigned stop, Scratch& scratch) {
  scratch.reserve_rows(graph.params.m0());
  Candidate at{0.0f, graph.entry};
  scratch.rows[0] = graph.rows[at.node];
  space.distances(q, scratch.rows.data(), 1, scratch.distances.data());
  at.distance = scratch.distances[0];
  for (unsigned layer = graph.levels[graph.entry]; layer > stop; --layer) {
    scratch.visited.clear(graph.size());
    for (bool moved = true; moved;) {
      moved = false;
      const std::size_t n = look_around(graph, space, q, at.node, layer, scratch);
      for (std::size_t i = 0; i < n; ++i) {
        const Candidate found{scratch.distances[i], scratch.fresh[i]};
        if (!nearer(found, at)) continue;
        at = found;
        moved = true;
      }
    }
  }
  return at;
}

void search_layer(const Graph& graph, const Space& space, const float* q, unsigned layer, std::size_t ef, const Keep& keep, Scratch& scratch) {
  scratch.reserve_rows(graph.params.m0());
  scratch.visited.clear(graph.size());
  for (const Candidate& start : scratch.best) scratch.visited.insert(start.node);
  scratch.frontier = scratch.best;
  std::make_heap(scratch.frontier.begin(), scratch.frontier.end(), farther);
  const auto dropped = std::remove_if(scratch.best.begin(), scratch.best.end(), [&](const Candidate& c) { return !keep(c.node); });
  scratch.best.erase(dropped, scratch.best.end());
  std::make_heap(scratch.best.begin(), scratch.best.end(), nearer);
  if (keep.everything()) {
    walk(graph, space, q, layer, ef, KeepAll{}, scratch);
  } else {
    walk(graph, space, q, layer, ef, keep, scratch);
  }
}

}  // namespace nf::graph
