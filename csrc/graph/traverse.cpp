#include "graph/traverse.h"

#include <algorithm>

#include "base/prefetch.h"
#include "graph/hops.h"

namespace nf::graph {
namespace {

// Rows that one call of the kernel takes; those of the next call are on their way from memory meanwhile.
constexpr std::size_t kAhead = 4;

// Distances of the first n nodes of scratch.fresh, into scratch.distances.
void measure_fresh(const Graph& graph, const From& from, std::size_t n, Scratch& scratch) {
  const std::size_t bytes = graph.codes.width();
  for (std::size_t i = 0; i < n; ++i) scratch.coded[i] = graph.codes[scratch.fresh[i]];
  for (std::size_t i = 0; i < std::min(n, kAhead); ++i) prefetch(scratch.coded[i], bytes);
  for (std::size_t i = 0; i < n; i += kAhead) {
    for (std::size_t j = i + kAhead; j < std::min(n, i + 2 * kAhead); ++j) prefetch(scratch.coded[j], bytes);
    from.coder.distances(from.probe, scratch.coded.data() + i, std::min(kAhead, n - i), scratch.products.data(), scratch.distances.data() + i);
  }
}

// visit(node) for the neighbours of a node that the walk may pass.
template <class Visit>
void each_link(const Graph& graph, const From& from, std::uint32_t node, unsigned layer, const Visit& visit) {
  const Link* links = graph.links(node, layer);
  const std::uint32_t capacity = graph.capacity(layer);
  for (std::uint32_t i = 0; i < capacity; ++i) {
    const std::uint32_t link = links[i];  // read once: a writer may change it
    if (link < from.passable) {
      visit(link);
    } else if (link == kNone) {
      break;
    }
  }
}

// Puts the unvisited neighbours of a node in scratch.fresh and their distances in scratch.distances; returns how many.
std::size_t look_around(const Graph& graph, const From& from, std::uint32_t node, unsigned layer, Scratch& scratch) {
  std::size_t n = 0;
  each_link(graph, from, node, layer, [&](std::uint32_t link) {
    scratch.fresh[n] = link;
    n += scratch.visited.insert(link) ? 1 : 0;
  });
  measure_fresh(graph, from, n, scratch);
  return n;
}

// The same with the unvisited kept nodes one or two links away.
std::size_t look_over(const Graph& graph, const From& from, std::uint32_t node, const Keep& keep, Scratch& scratch) {
  const auto links = [&](std::uint32_t of, const auto& visit) { each_link(graph, from, of, 0, visit); };
  const auto fetch = [&](std::uint32_t of) { prefetch(graph.links(of, 0), graph.capacity(0) * sizeof(Link)); };
  const auto see = [&](std::uint32_t each) { return scratch.visited.insert(each); };
  const std::size_t n = hop_from(node, keep, links, see, fetch, scratch.passed, scratch.fresh.data()).fresh;
  measure_fresh(graph, from, n, scratch);
  return n;
}

// Every node may be a result: the candidates to expand are among the results, so one pool holds both.
void walk_all(const Graph& graph, const From& from, unsigned layer, std::size_t ef, Scratch& scratch) {
  Pool& pool = scratch.pool;
  pool.reset(ef);
  for (const Candidate& start : scratch.best) pool.offer(key_of(start.distance, start.node));
  while (pool.open()) {
    const std::uint32_t node = pool.expand();
    if (pool.open()) __builtin_prefetch(graph.links(pool.next(), layer));
    const std::size_t n = look_around(graph, from, node, layer, scratch);
    for (std::size_t i = 0; i < n; ++i) pool.add(key_of(scratch.distances[i], scratch.fresh[i]));
    pool.settle();
  }
  scratch.best.clear();
  for (std::size_t i = 0; i < pool.size(); ++i) scratch.best.push_back({distance_of(pool[i]), node_of(pool[i])});
}

// Only kept nodes are results, but the way to them leads over others: as many of these as it takes.
void walk_kept(const Graph& graph, const From& from, unsigned layer, std::size_t ef, const Keep& keep, Scratch& scratch) {
  auto& frontier = scratch.frontier;
  auto& best = scratch.best;
  frontier = best;
  std::make_heap(frontier.begin(), frontier.end(), farther);
  best.erase(std::remove_if(best.begin(), best.end(), [&](const Candidate& c) { return !keep(c.node); }), best.end());
  std::make_heap(best.begin(), best.end(), nearer);
  while (!frontier.empty()) {
    const Candidate current = frontier.front();
    if (best.size() >= ef && nearer(best.front(), current)) break;
    std::pop_heap(frontier.begin(), frontier.end(), farther);
    frontier.pop_back();
    if (!frontier.empty()) __builtin_prefetch(graph.links(frontier.front().node, layer));
    const std::size_t n = look_around(graph, from, current.node, layer, scratch);
    for (std::size_t i = 0; i < n; ++i) {
      const Candidate found{scratch.distances[i], scratch.fresh[i]};
      if (best.size() >= ef && !nearer(found, best.front())) continue;
      frontier.push_back(found);
      std::push_heap(frontier.begin(), frontier.end(), farther);
      if (!keep(found.node)) continue;
      best.push_back(found);
      std::push_heap(best.begin(), best.end(), nearer);
      if (best.size() > ef) {
        std::pop_heap(best.begin(), best.end(), nearer);
        best.pop_back();
      }
    }
  }
  std::sort_heap(best.begin(), best.end(), nearer);
}

}  // namespace

void search_kept(const Graph& graph, const From& from, std::size_t ef, const Keep& keep, Scratch& scratch) {
  const std::size_t links = graph.params.m0();
  scratch.reserve_rows(links * (links + 1));
  scratch.visited.clear(from.passable);
  if (from.skipped < from.passable) scratch.visited.insert(from.skipped);
  for (const Candidate& start : scratch.best) scratch.visited.insert(start.node);
  Pool &open = scratch.pool, &found = scratch.kept;
  open.reset(ef);
  found.reset(ef);
  const auto add = [&](std::uint32_t node, float distance) {
    open.add(key_of(distance, node));
    if (keep(node)) found.add(key_of(distance, node));
  };
  for (const Candidate& start : scratch.best) add(start.node, start.distance);
  open.settle();
  found.settle();
  while (open.open()) {
    const std::uint32_t node = open.expand();
    if (open.open()) __builtin_prefetch(graph.links(open.next(), 0));
    const std::size_t n = look_over(graph, from, node, keep, scratch);
    for (std::size_t i = 0; i < n; ++i) add(scratch.fresh[i], scratch.distances[i]);
    open.settle();
    found.settle();
  }
  scratch.best.clear();
  for (std::size_t i = 0; i < found.size(); ++i) scratch.best.push_back({distance_of(found[i]), node_of(found[i])});
}

codec::Probe probe_of(const codec::Coder& coder, const float* query, Scratch& scratch) {
  scratch.rest.resize(coder.dim());
  scratch.query.resize(coder.width());
  return coder.encode_query(query, scratch.rest.data(), scratch.query.data());
}

Candidate descend(const Graph& graph, const From& from, unsigned stop, Scratch& scratch) {
  scratch.reserve_rows(graph.params.m0());
  Candidate at{0.0f, from.entry};
  scratch.coded[0] = graph.codes[at.node];
  from.coder.distances(from.probe, scratch.coded.data(), 1, scratch.products.data(), &at.distance);
  for (unsigned layer = graph.levels[from.entry]; layer > stop; --layer) {
    scratch.visited.clear(from.passable);
    if (from.skipped < from.passable) scratch.visited.insert(from.skipped);
    for (bool moved = true; moved;) {
      moved = false;
      const std::size_t n = look_around(graph, from, at.node, layer, scratch);
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

void search_layer(const Graph& graph, const From& from, unsigned layer, std::size_t ef, const Keep& keep, Scratch& scratch) {
  scratch.reserve_rows(graph.params.m0());
  scratch.visited.clear(from.passable);
  if (from.skipped < from.passable) scratch.visited.insert(from.skipped);
  for (const Candidate& start : scratch.best) scratch.visited.insert(start.node);
  if (keep.everything()) {
    walk_all(graph, from, layer, ef, scratch);
  } else {
    walk_kept(graph, from, layer, ef, keep, scratch);
  }
}

}  // namespace nf::graph
