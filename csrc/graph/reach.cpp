#include "graph/reach.h"

#include <algorithm>
#include <vector>

#include "graph/traverse.h"

namespace nf::graph {
namespace {

// A tree of links that leads from the entry to every node reached.
class Tree {
 public:
  explicit Tree(const Graph& graph) : graph_(graph), parent_(graph.size(), kNone) {
    if (graph.entry != kNone) grow(graph.entry, graph.entry);
  }

  bool holds(std::uint32_t node) const { return parent_[node] != kNone; }
  bool needs_link(std::uint32_t from, std::uint32_t to) const { return parent_[to] == from; }
  std::size_t outside() const { return static_cast<std::size_t>(std::count(parent_.begin(), parent_.end(), kNone)); }

  // Adds a node below `parent`, and all that can be reached from it.
  void grow(std::uint32_t node, std::uint32_t parent) {
    parent_[node] = parent;
    queue_.assign(1, node);
    while (!queue_.empty()) {
      const std::uint32_t at = queue_.back();
      queue_.pop_back();
      const std::uint32_t* links = graph_.links(at, 0);
      for (std::uint32_t i = 0; i < graph_.capacity(0) && links[i] != kNone; ++i) {
        if (holds(links[i])) continue;
        parent_[links[i]] = at;
        queue_.push_back(links[i]);
      }
    }
  }

 private:
  const Graph& graph_;
  std::vector<std::uint32_t> parent_;
  std::vector<std::uint32_t> queue_;
};

// Where `from` can take one more link: a free place, else the last that the tree does not need; null when there is none.
std::uint32_t* place_in(Graph& graph, const Tree& tree, std::uint32_t from) {
  std::uint32_t* const links = graph.links(from, 0);
  std::uint32_t* const end = links + graph.capacity(0);
  std::uint32_t* const free = std::find(links, end, kNone);
  if (free != end) return free;
  for (std::uint32_t* link = end; link != links; --link) {
    if (!tree.needs_link(from, link[-1])) return link - 1;
  }
  return nullptr;
}

bool link_from(Graph& graph, Tree& tree, std::uint32_t from, std::uint32_t node) {
  if (!tree.holds(from)) return false;
  std::uint32_t* const place = place_in(graph, tree, from);
  if (place == nullptr) return false;
  *place = node;
  tree.grow(node, from);
  return true;
}

void attach(Graph& graph, const codec::Coder& coder, Tree& tree, std::uint32_t node, Scratch& scratch) {
  const From from{coder, coder.probe_of(graph.codes[node])};
  scratch.best.assign(1, descend(graph, from, 0, scratch));
  search_layer(graph, from, 0, graph.params.ef_construction, Keep{}, scratch);
  for (const Candidate& near : scratch.best) {
    if (link_from(graph, tree, near.node, node)) return;
  }
  // Every list near by is needed in full. A tree of n nodes has n - 1 links, so somewhere there is one with a place.
  for (std::uint32_t any = 0; any < graph.size(); ++any) {
    if (link_from(graph, tree, any, node)) return;
  }
}

}  // namespace

std::size_t count_unreached(const Graph& graph) { return Tree(graph).outside(); }

std::size_t connect(Graph& graph, ScratchList& scratches) {
  Tree tree(graph);
  const codec::Coder coder = graph.coder();
  auto scratch = scratches.borrow();
  std::size_t made = 0;
  for (std::uint32_t node = 0; node < graph.size(); ++node) {
    if (tree.holds(node)) continue;
    attach(graph, coder, tree, node, *scratch);
    ++made;
  }
  return made;
}

}  // namespace nf::graph
