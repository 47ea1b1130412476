#include "graph/build.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "base/status.h"
#include "graph/select.h"
#include "graph/traverse.h"
#include "parallel/pool.h"

namespace nf::graph {
namespace {

bool by_target(const BackLink& a, const BackLink& b) {
  if (a.layer != b.layer) return a.layer < b.layer;
  return a.target != b.target ? a.target < b.target : a.source < b.source;
}

// scratch.peers becomes the nodes of the batch before `node`, with their distances.
void measure_peers(const Graph& graph, const From& from, std::uint32_t begin, std::uint32_t node, Scratch& scratch) {
  const std::size_t n = node - begin;
  scratch.reserve_rows(kMaxBatch);
  for (std::size_t i = 0; i < n; ++i) scratch.coded[i] = graph.codes[begin + i];
  scratch.peers.clear();
  from.coder.distances(from.probe, scratch.coded.data(), n, scratch.products.data(), scratch.distances.data());
  for (std::size_t i = 0; i < n; ++i) scratch.peers.push_back({scratch.distances[i], begin + static_cast<std::uint32_t>(i)});
}

// scratch.candidates becomes what the walk found, less deleted nodes: these get no new links, or they would never fall out of the graph.
void take_live(const Graph& graph, const From& from, unsigned layer, Scratch& scratch) {
  scratch.candidates = scratch.best;
  if (graph.deleted.count() == 0) return;
  const auto dead = [&](const Candidate& c) { return graph.deleted[c.node]; };
  auto& found = scratch.candidates;
  found.erase(std::remove_if(found.begin(), found.end(), dead), found.end());
  if (!found.empty()) return;
  search_layer(graph, from, layer, graph.params.ef_construction, Keep{graph.deleted.data()}, scratch);
  found = scratch.best;
}

// Algorithm 1 for one node, up to choosing its own neighbours. Reads the graph before the batch, writes only the node's own lists.
void choose_links(Graph& graph, const codec::Coder& coder, std::uint32_t begin, std::uint32_t node, Scratch& scratch) {
  const From from = from_node(graph, coder, node);
  const std::size_t ef = graph.params.ef_construction;
  const unsigned level = graph.levels[node];
  scratch.best.clear();
  unsigned top = 0;
  if (graph.entry != kNone) {
    top = graph.levels[graph.entry];
    const Candidate start = descend(graph, from, std::min(level, top), scratch);
    scratch.best.push_back(start);
  }
  measure_peers(graph, from, begin, node, scratch);
  for (unsigned layer = level + 1; layer-- > 0;) {
    if (graph.entry != kNone && layer <= top) search_layer(graph, from, layer, ef, Keep{}, scratch);
    scratch.candidates.clear();
    if (graph.entry != kNone && layer <= top) take_live(graph, from, layer, scratch);
    // Had peers come one by one, the walk would have dropped those that are farther than all it found.
    const bool full = scratch.candidates.size() >= ef;
    for (const Candidate& peer : scratch.peers) {
      if (graph.levels[peer.node] >= layer && !(full && nearer(scratch.best.back(), peer))) scratch.candidates.push_back(peer);
    }
    // As many as fit, also on layer 0 (the paper: M): walks take a tenth fewer steps, the build a third more time (docs/hnsw.md).
    select_neighbours(graph, coder, node, graph.capacity(layer), scratch);
    graph.write_links(node, layer, scratch.chosen);
  }
}

// Adds the sources of one target, shrinking its list by the same heuristic when they do not fit (algorithm 1, lines 13-16).
void link_back(Graph& graph, const codec::Coder& coder, const BackLink* begin, const BackLink* end, Scratch& scratch) {
  const std::uint32_t target = begin->target;
  const unsigned layer = begin->layer;
  const std::uint32_t capacity = graph.capacity(layer);
  Link* links = graph.links(target, layer);
  const std::size_t old = static_cast<std::size_t>(std::find(links, links + capacity, kNone) - links);
  const std::size_t n = old + static_cast<std::size_t>(end - begin);
  if (n <= capacity) {
    for (const BackLink* link = begin; link != end; ++link) links[old + static_cast<std::size_t>(link - begin)] = link->source;
    return;
  }
  for (std::size_t i = 0; i < n; ++i) {
    scratch.fresh[i] = i < old ? static_cast<std::uint32_t>(links[i]) : begin[i - old].source;
    scratch.coded[i] = graph.codes[scratch.fresh[i]];
  }
  coder.distances(coder.probe_of(graph.codes[target]), scratch.coded.data(), n, scratch.products.data(), scratch.distances.data());
  scratch.candidates.clear();
  for (std::size_t i = 0; i < n; ++i) scratch.candidates.push_back({scratch.distances[i], scratch.fresh[i]});
  select_neighbours(graph, coder, target, capacity, scratch);
  graph.write_links(target, layer, scratch.chosen);
}

std::vector<BackLink> links_of_batch(const Graph& graph, std::uint32_t begin, std::uint32_t end) {
  std::vector<BackLink> links;
  for (std::uint32_t node = begin; node < end; ++node) {
    for (unsigned layer = 0; layer <= graph.levels[node]; ++layer) {
      const Link* list = graph.links(node, layer);
      for (std::uint32_t i = 0; i < graph.capacity(layer) && list[i] != kNone; ++i) links.push_back({layer, list[i], node});
    }
  }
  return links;
}

// Where each target's links begin, and one past the last.
std::vector<std::size_t> groups_of(const std::vector<BackLink>& links) {
  std::vector<std::size_t> starts;
  for (std::size_t i = 0; i < links.size(); ++i) {
    if (i == 0 || links[i].target != links[i - 1].target || links[i].layer != links[i - 1].layer) starts.push_back(i);
  }
  starts.push_back(links.size());
  return starts;
}

// With this room link_back allocates nothing, so it cannot fail half-way.
void reserve_for_links(const Graph& graph, std::size_t sources, Scratch& scratch) {
  const std::size_t most = graph.params.m0() + sources;
  scratch.reserve_rows(most);
  scratch.candidates.reserve(most);
  scratch.chosen.reserve(most);
}

// Calls body(i, part) once for each i below n; a thread that is done takes the next, as some nodes cost several times what others do.
template <typename Body>
void for_each(std::size_t n, int threads, const Body& body) {
  std::atomic<std::size_t> next{0};
  const std::size_t parts = std::min<std::size_t>(n, static_cast<std::size_t>(std::max(1, threads)));
  raise_if_bad(parallel::parallel_for(parts, threads, [&](std::size_t begin, std::size_t end, std::size_t part) {
    for (std::size_t each = begin; each < end; ++each) {
      for (std::size_t i = next++; i < n; i = next++) body(i, part);
    }
  }));
}

void link_batch(Graph& graph, const codec::Coder& coder, std::uint32_t begin, std::uint32_t end, int threads, ScratchList& scratches) {
  std::vector<ScratchList::Lease> leases;
  for (int part = 0; part < std::max(1, threads); ++part) {
    leases.push_back(scratches.borrow());
    leases.back()->pool.use(kernels::insert_key());
  }
  for_each(end - begin, threads, [&](std::size_t i, std::size_t part) {
    choose_links(graph, coder, begin, begin + static_cast<std::uint32_t>(i), *leases[part]);
  });
  leases.clear();
  std::vector<BackLink> links = links_of_batch(graph, begin, end);
  link_back_all(graph, links, threads, scratches);
}

}  // namespace

void link_back_all(Graph& graph, std::vector<BackLink>& links, int threads, ScratchList& scratches) {
  if (links.empty()) return;
  std::sort(links.begin(), links.end(), by_target);
  const codec::Coder coder = graph.coder();
  const std::vector<std::size_t> starts = groups_of(links);
  std::size_t largest = 0;
  for (std::size_t i = 0; i + 1 < starts.size(); ++i) largest = std::max(largest, starts[i + 1] - starts[i]);
  // Borrowed and filled on this thread, before the first list changes.
  std::vector<ScratchList::Lease> leases;
  const auto parts = static_cast<std::size_t>(std::max(1, threads));
  for (std::size_t part = 0; part < std::min(parts, starts.size()); ++part) {
    leases.push_back(scratches.borrow());
    reserve_for_links(graph, largest, *leases.back());
  }
  for_each(starts.size() - 1, threads, [&](std::size_t i, std::size_t part) {
    link_back(graph, coder, &links[starts[i]], links.data() + starts[i + 1], *leases[part]);
  });
}

void link_nodes(Graph& graph, std::size_t first, int threads, ScratchList& scratches) {
  const codec::Coder coder = graph.coder();
  for (std::size_t linked = first; linked < graph.size();) {
    const std::size_t batch = std::min({std::max<std::size_t>(1, linked), kMaxBatch, graph.size() - linked});
    const auto begin = static_cast<std::uint32_t>(linked), end = static_cast<std::uint32_t>(linked + batch);
    link_batch(graph, coder, begin, end, threads, scratches);
    for (std::uint32_t node = begin; node < end; ++node) {
      if (graph.entry == kNone || graph.levels[node] > graph.levels[graph.entry]) graph.entry = node;
    }
    linked += batch;
  }
}

}  // namespace nf::graph
