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
  std::size_t outside() const {
    std::size_t count = 0;
    for (std::uint32_t node = 0; node < parent_.size(); ++node) count += holds(node) || graph_.deleted[node] ? 0 : 1;
    return count;
  }

  // Adds a node below `parent`, and all that can be reached from it.
  void grow(std::uint32_t node, std::uint32_t parent) {
    parent_[node] = parent;
    queue_.assign(1, node);
    while (!queue_.empty()) {
      const std::uint32_t at = queue_.back();
      queue_.pop_back();
      const Link* links = graph_.links(at, 0);
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
Link* place_in(Graph& graph, const Tree& tree, std::uint32_t from) {
  Link* const links = graph.links(from, 0);
  Link* const end = links + graph.capacity(0);
  Link* const free = std::find(links, end, kNone);
  if (free != end) return free;
  for (Link* link = end; link != links; --link) {
    if (!tree.needs_link(from, link[-1])) return link - 1;
  }
  return nullptr;
}

bool link_from(Graph& graph, Tree& tree, std::uint32_t from, std::uint32_t node) {
  if (!tree.holds(from) || graph.deleted[from]) return false;
  Link* const place = place_in(graph, tree, from);
  if (place == nullptr) return false;
  *place = node;
  tree.grow(node, from);
  return true;
}

void attach(Graph& graph, const codec::Coder& coder, Tree& tree, std::uint32_t node, Scratch& scratch) {
  const From from = from_node(graph, coder, node);
  scratch.best.assign(1, descend(graph, from, 0, scratch));
  search_layer(graph, from, 0, graph.params.ef_construction, Keep{}, scratch);
  for (const Candidate& near : scratch.best) {
    if (link_from(graph, tree, near.node, node)) return;
  }
  // Every list near by is needed in full. A tree of n nodes has n - 1 links, so somewhere there is one with a place: of a live node,
  // but where tombstones are a way that nothing else knows.
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
    if (tree.holds(node) || graph.deleted[node]) continue;
    attach(graph, coder, tree, node, *scratch);
    ++made;
  }
  return made;
}

}  // namespace nf::graph
