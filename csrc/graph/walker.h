// One query's walk through a frozen graph, a step at a time, so that several walks take turns on one core: while one computes, the blocks that the
// others need next are on their way from memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "graph/blocks.h"
#include "graph/coded_query.h"
#include "graph/pool.h"
#include "graph/request.h"
#include "graph/scratch.h"
#include "graph/skim.h"
#include "score/plan.h"

namespace nf::graph {

// A set of nodes: a table that is at most half full.
class NodeSet {
 public:
  // Room for about `expected` nodes; more make it grow.
  void clear(std::size_t expected);
  // False when the node is in the set.
  bool insert(std::uint32_t node);
  bool holds(std::uint32_t node) const {
    for (std::size_t at = place_of(node);; at = (at + 1) & (places_.size() - 1)) {
      if (places_[at] == kNone || places_[at] == node) return places_[at] == node;
    }
  }

 private:
  // Fibonacci hashing: the top bits of a product with 2^32 over the golden ratio.
  std::size_t place_of(std::uint32_t node) const { return static_cast<std::uint32_t>(node * 0x9E3779B9u) >> shift_; }
  void resize(std::size_t places);
  bool put(std::uint32_t node);

  std::vector<std::uint32_t> places_;
  std::size_t used_ = 0;
  unsigned shift_ = 0;
};

// Kernels and codes, chosen once per job on the caller's thread.
struct FrozenTools {
  explicit FrozenTools(const FrozenGraph& g) : graph(g), coder(g.coder()), estimate(kernels::estimate_1bit()), insert(kernels::insert_key()), hadamard(kernels::hadamard()) {}

  const FrozenGraph& graph;
  codec::Coder coder;
  kernels::Estimate1Bit estimate;
  kernels::InsertKey insert;
  kernels::Hadamard hadamard;
};

// The block that a walk needs at its next turn, left to the walk whose turn comes now: a core asks for some sixteen lines at a time and stands
// still at the next, so a block's 35 are asked for one by one while the other walk computes.
class Ahead {
 public:
  void leave(const unsigned char* block, std::size_t bytes);
  const unsigned char* take() { return std::exchange(block_, nullptr); }

 private:
  const unsigned char* block_ = nullptr;
};

// Where a walk ends besides its room: at a candidate whose |q - x|^2 is beyond the k-th best one's by a share
// `gain` of it, or of `least` where that is more. gain 0: the room alone.
// `square` is |x|^2 of every row where distances are told by inner products.
struct Reach {
  std::size_t k = 0;
  double gain = 0.0, least = 0.0, square = 1.0;
};

class Walker {
 public:
  // Codes of the query; needed before anything else.
  void prepare(const FrozenTools& tools, const score::Query& query) { query_.prepare(tools.coder, tools.graph.params.metric, query); }

  // A walk over the nodes that may be results alone, two links at a time (`hop`), or over all of them.
  enum class Over { all, kept };

  // A walk with `ef` candidates that keeps the `most` nearest nodes among those that may be results, and does not see `skipped`.
  void start(const FrozenTools& tools, std::size_t ef, std::size_t most, const Keep& keep, std::uint32_t skipped, const Reach& reach, Over over);
  // Expands the nearest open candidate, or fetches what finish() reads; false when there was nothing to do: the walk is over.
  // Without `ahead`, as where no other walk is under way, the next block is asked for at once.
  bool step(const FrozenTools& tools, Ahead* ahead);
  // How many nodes the walk has expanded, and how many of them may be results; over kept nodes, of how many it has asked that.
  std::size_t expanded() const { return expanded_; }
  std::size_t kept() const { return kept_; }
  // The k best of what the walk found, into scored().
  void finish(const FrozenTools& tools, std::size_t k);
  double score_of(const FrozenTools& tools, std::uint32_t node) const;
  const std::vector<Scored>& scored() const { return scored_; }

 private:
  void make_tables(const FrozenTools& tools);
  void estimate_neighbours(const FrozenTools& tools, std::uint32_t node, float distance, const unsigned char* ahead);
  void measure_neighbours(const FrozenTools& tools, std::uint32_t node);
  void hop(const FrozenTools& tools, std::uint32_t node);
  void measure_fresh(const FrozenTools& tools, std::size_t n);
  void draw_bound();

  // The query.
  CodedQuery query_;
  std::vector<float> rotated_;
  std::vector<std::uint8_t> tables_;
  kernels::Estimate1BitQuery table_{};

  // The walk.
  Keep keep_;
  Pool open_;    // candidates, by what is known of their distance
  Pool found_;   // nodes measured
  NodeSet seen_;
  Reach reach_;
  double away_ = 0.0;       // what a walk's distances lack to be |q - x|^2, or, by inner products, |q| |x| - q . x
  Key bound_ = ~Key{0};     // candidates from here on are too far
  std::size_t kept_ = 0, expanded_ = 0;
  bool fetched_ = false;
  Over over_ = Over::all;
  std::vector<std::uint32_t> fresh_, passed_;
  std::vector<const std::int8_t*> rows_;
  std::vector<std::int32_t> products_;
  std::vector<float> distances_;
  std::vector<Scored> scored_;
};

// Walks that take turns, and scans instead of walks.
struct Walkers {
  static constexpr std::size_t kTurns = 4;
  struct Lane {
    Walker walker;
    std::size_t at = 0;  // whose query
    Allowed allowed;
    Bits own;            // what `allowed` may point to
  };
  Lane lanes[kTurns];
  Skim skim;
};

}  // namespace nf::graph
