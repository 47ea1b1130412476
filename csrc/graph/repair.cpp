#include "graph/repair.h"

#include <algorithm>

#include "base/status.h"
#include "graph/build.h"
#include "graph/select.h"
#include "graph/traverse.h"
#include "parallel/pool.h"

namespace nf::graph {
namespace {

// Tombstones looked behind for one list, and live nodes found there: bounds the work where a whole region is gone.
constexpr std::size_t kMostPassed = 128;

// A node that a deleted one named has lost a way to it, and offers itself to so many of its neighbours.
constexpr std::uint32_t kOffers = 3;

// A list that names a deleted node.
struct Spot {
  std::uint32_t node;
  unsigned layer;
};

bool operator<(const Spot& a, const Spot& b) { return a.layer != b.layer ? a.layer < b.layer : a.node < b.node; }
bool operator==(const Spot& a, const Spot& b) { return a.layer == b.layer && a.node == b.node; }

// Calls on each part of [0, items) with a list of its own, and joins the lists in order.
template <typename Body>
std::vector<Spot> collect(std::size_t items, int threads, const Body& body) {
  std::vector<std::vector<Spot>> found(static_cast<std::size_t>(std::max(1, threads)));
  raise_if_bad(parallel::parallel_for(items, threads, [&](std::size_t begin, std::size_t end, std::size_t part) {
    for (std::size_t i = begin; i < end; ++i) body(static_cast<std::uint32_t>(i), found[part]);
  }));
  std::vector<Spot> all;
  for (const std::vector<Spot>& part : found) all.insert(all.end(), part.begin(), part.end());
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

bool names_deleted(const Graph& graph, std::uint32_t node, unsigned layer) {
  const Link* links = graph.links(node, layer);
  for (std::uint32_t i = 0; i < graph.capacity(layer) && links[i] != kNone; ++i) {
    if (graph.deleted[links[i]]) return true;
  }
  return false;
}

// Lists that name a deleted node among the nodes nearest to one such.
void look_near(const Graph& graph, const codec::Coder& coder, std::uint32_t node, Scratch& scratch, std::vector<Spot>& found) {
  const From from = from_node(graph, coder, node);
  for (unsigned layer = 0; layer <= graph.levels[node]; ++layer) {
    scratch.best.assign(1, {-codec::kFar, node});  // nearest of all: walked from first
    search_layer(graph, from, layer, graph.params.ef_construction, Keep{}, scratch);
    for (const Candidate& near : scratch.best) {
      if (!graph.deleted[near.node] && names_deleted(graph, near.node, layer)) found.push_back({near.node, layer});
    }
  }
}

std::vector<Spot> every_spot(const Graph& graph, int threads) {
  return collect(graph.size(), threads, [&](std::uint32_t node, std::vector<Spot>& found) {
    if (graph.deleted[node]) return;
    for (unsigned layer = 0; layer <= graph.levels[node]; ++layer) {
      if (names_deleted(graph, node, layer)) found.push_back({node, layer});
    }
  });
}

// scratch.chosen becomes the live nodes that a list names; returns how many there were with the deleted ones. scratch.candidates becomes the
// live nodes that lie behind these, with their distances.
std::size_t gather_live(const Graph& graph, const codec::Coder& coder, const Spot& spot, Scratch& scratch) {
  std::vector<std::uint32_t>& passed = scratch.passed;
  std::vector<std::uint32_t>& live = scratch.found;
  passed.assign(1, spot.node);
  live.clear();
  scratch.visited.clear(graph.size());
  scratch.visited.insert(spot.node);
  std::size_t degree = 0;
  for (std::size_t at = 0; at < std::min(passed.size(), kMostPassed) && live.size() < graph.params.ef_construction; ++at) {
    const Link* links = graph.links(passed[at], spot.layer);
    for (std::uint32_t i = 0; i < graph.capacity(spot.layer) && links[i] != kNone; ++i) {
      if (scratch.visited.insert(links[i])) (graph.deleted[links[i]] ? passed : live).push_back(links[i]);
    }
    if (at > 0) continue;
    degree = live.size() + passed.size() - 1;
    scratch.chosen.swap(live);
    live.clear();
  }
  scratch.reserve_rows(live.size());
  for (std::size_t i = 0; i < live.size(); ++i) scratch.coded[i] = graph.codes[live[i]];
  coder.distances(coder.probe_of(graph.codes[spot.node]), scratch.coded.data(), live.size(), scratch.products.data(), scratch.distances.data());
  scratch.candidates.clear();
  for (std::size_t i = 0; i < live.size(); ++i) scratch.candidates.push_back({scratch.distances[i], live[i]});
  return degree;
}

// Each list is one part's alone, and no other is read but those of deleted nodes, which do not change.
void mend(Graph& graph, const codec::Coder& coder, const std::vector<Spot>& spots, int threads, ScratchList& scratches) {
  raise_if_bad(parallel::parallel_for(spots.size(), threads, [&](std::size_t begin, std::size_t end, std::size_t) {
    auto scratch = scratches.borrow();
    for (std::size_t i = begin; i < end; ++i) {
      const Spot& spot = spots[i];
      const std::size_t degree = gather_live(graph, coder, spot, *scratch);
      add_neighbours(graph, coder, spot.node, degree, graph.capacity(spot.layer), *scratch);
      graph.write_links(spot.node, spot.layer, scratch->chosen);
    }
  }));
}

bool names(const Graph& graph, std::uint32_t from, unsigned layer, std::uint32_t to) {
  const Link* links = graph.links(from, layer);
  return std::find(links, links + graph.capacity(layer), to) != links + graph.capacity(layer);
}

// Live nodes that deleted ones named stand in the lists of their own first neighbours again, as when they came.
void offer(Graph& graph, const std::vector<std::uint64_t>& nodes, int threads, ScratchList& scratches) {
  std::vector<Spot> cut;
  for (const std::uint64_t node : nodes) {
    for (unsigned layer = 0; layer <= graph.levels[node]; ++layer) {
      const Link* links = graph.links(static_cast<std::uint32_t>(node), layer);
      for (std::uint32_t i = 0; i < graph.capacity(layer) && links[i] != kNone; ++i) {
        if (!graph.deleted[links[i]]) cut.push_back({links[i], layer});
      }
    }
  }
  std::sort(cut.begin(), cut.end());
  cut.erase(std::unique(cut.begin(), cut.end()), cut.end());
  std::vector<BackLink> offers;
  for (const Spot& spot : cut) {
    const Link* links = graph.links(spot.node, spot.layer);
    for (std::uint32_t i = 0; i < std::min(kOffers, graph.capacity(spot.layer)) && links[i] != kNone; ++i) {
      if (!graph.deleted[links[i]] && !names(graph, links[i], spot.layer, spot.node)) offers.push_back({spot.layer, links[i], spot.node});
    }
  }
  link_back_all(graph, offers, threads, scratches);
}

// The first of the live nodes on the highest layer that has any.
void choose_entry(Graph& graph) {
  if (graph.entry != kNone && !graph.deleted[graph.entry]) return;
  graph.entry = kNone;
  for (std::uint32_t node = 0; node < graph.size(); ++node) {
    if (!graph.deleted[node] && (graph.entry == kNone || graph.levels[node] > graph.levels[graph.entry])) graph.entry = node;
  }
}

}  // namespace

void unlink(Graph& graph, const std::vector<std::uint64_t>& nodes, int threads, ScratchList& scratches) {
  if (nodes.empty()) return;
  const codec::Coder coder = graph.coder();
  // A walk reads some ef_construction lists, and measures what they name.
  const bool all = nodes.size() * graph.params.ef_construction >= graph.size();
  const std::vector<Spot> spots = all ? every_spot(graph, threads) : collect(nodes.size(), threads, [&](std::uint32_t i, std::vector<Spot>& found) {
    auto scratch = scratches.borrow();
    look_near(graph, coder, static_cast<std::uint32_t>(nodes[i]), *scratch, found);
  });
  mend(graph, coder, spots, threads, scratches);
  offer(graph, nodes, threads, scratches);
  choose_entry(graph);
}

void unlink_all(Graph& graph, int threads, ScratchList& scratches) {
  std::vector<std::uint64_t> nodes;
  for (std::size_t node = 0; node < graph.size(); ++node) {
    if (graph.deleted[node]) nodes.push_back(node);
  }
  mend(graph, graph.coder(), every_spot(graph, threads), threads, scratches);
  offer(graph, nodes, threads, scratches);
}

}  // namespace nf::graph
