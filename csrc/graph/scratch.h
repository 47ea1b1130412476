// What one thread needs while it walks the graph: kept between queries, so that a query allocates nothing once the first ones have run.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "graph/pool.h"

namespace nf::graph {

struct Candidate {
  float distance;
  std::uint32_t node;
};

struct Scored {
  double score;
  std::uint32_t node;
};

// Best first; equal scores in order of insertion.
inline bool better(const Scored& a, const Scored& b) { return a.score > b.score || (a.score == b.score && a.node < b.node); }

// Nearest first; equal distances by insertion order, so that every order below is total and the same everywhere.
inline bool nearer(const Candidate& a, const Candidate& b) {
  return a.distance < b.distance || (a.distance == b.distance && a.node < b.node);
}
inline bool farther(const Candidate& a, const Candidate& b) { return nearer(b, a); }

// A set of nodes that empties in O(1): a node is in it when its mark is the current epoch.
class Visited {
 public:
  void clear(std::size_t nodes) {
    if (marks_.size() < nodes) marks_.resize(std::max(nodes, marks_.size() * 2), 0);
    // 16 bits halve the cache the marks take; the sweep once in 65,535 queries costs nothing beside them.
    if (++epoch_ == 0) {
      std::fill(marks_.begin(), marks_.end(), std::uint16_t{0});
      epoch_ = 1;
    }
  }
  bool insert(std::uint32_t node) {
    if (marks_[node] == epoch_) return false;
    marks_[node] = epoch_;
    return true;
  }

 private:
  std::vector<std::uint16_t> marks_;
  std::uint16_t epoch_ = 0;
};

struct Scratch {
  Visited visited;
  Pool pool;                          // of a walk in which every node may be a result
  Pool kept;                          // results of a walk over kept nodes
  std::vector<Candidate> frontier;    // of other walks, a min-heap: nodes whose neighbours are not looked at yet
  std::vector<Candidate> best;        // a walk's starts, then its results, nearest first
  std::vector<Candidate> peers;       // nodes of the same batch
  std::vector<Candidate> candidates;  // input of the neighbour selection
  std::vector<std::uint32_t> passed;  // nodes that are looked behind: deleted ones by a repair ...
  std::vector<std::uint32_t> found;   // ... and the live ones there
  std::vector<std::uint32_t> fresh;   // the nodes whose distances are asked for
  std::vector<std::uint32_t> chosen;  // output of the neighbour selection
  std::vector<Scored> scored;         // the answer to one query
  std::vector<const float*> rows;     // what the distance kernels take ...
  std::vector<const std::int8_t*> coded;
  std::vector<std::int32_t> products;
  std::vector<float> distances;       // ... and give
  std::vector<std::int8_t> query;     // a query's codes
  std::vector<float> rest;            // and what they are made of

  // Room for n rows at once, rounded up as Space::distances asks.
  void reserve_rows(std::size_t n) {
    if (rows.size() < n + 4) rows.resize(n + 4);
    if (coded.size() < n) coded.resize(n);
    if (products.size() < n) products.resize(n);
    if (distances.size() < n + 4) distances.resize(n + 4);
    if (fresh.size() < n) fresh.resize(n);
  }
};

// Things not in use. A caller borrows one for a call; the list grows to the number of callers at once.
template <typename T>
class Lending {
 public:
  class Lease {
   public:
    Lease(Lending& home, std::unique_ptr<T> lent) : home_(&home), lent_(std::move(lent)) {}
    Lease(Lease&&) = default;
    ~Lease() {
      if (lent_ != nullptr) home_->give_back(std::move(lent_));
    }
    T& operator*() { return *lent_; }
    T* operator->() { return lent_.get(); }

   private:
    Lending* home_;
    std::unique_ptr<T> lent_;
  };

  Lease borrow() {
    {
      const std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        auto lent = std::move(free_.back());
        free_.pop_back();
        return Lease(*this, std::move(lent));
      }
    }
    return Lease(*this, std::make_unique<T>());
  }

 private:
  void give_back(std::unique_ptr<T> lent) {
    const std::lock_guard lock(mutex_);
    try {
      free_.push_back(std::move(lent));
    } catch (...) {  // no memory for the list: what was lent is freed instead
    }
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<T>> free_;
};

using ScratchList = Lending<Scratch>;

}  // namespace nf::graph
