// What a search sees of a graph that changes: published as a whole after each change, and never changed itself.
//
// A search holds on to one snapshot. Its results are nodes below `size` that are not in `deleted`. What they are reached by, the links, is shared
// with the writer and may be of a later moment: each of them is read once, and followed when it names a node below `passable`, whose row, codes
// and level were written before the snapshot that says so was published. So no search waits for a writer, or a writer for searches: the one lock,
// in Published, is held while a pointer is copied.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace nf::graph {

constexpr std::uint32_t kNone = 0xFFFFFFFFu;  // no node: ends a neighbour list, or an empty graph's entry

// Which nodes are deleted, a byte for each. What share() gives has the same bytes; the first mark after it is made in new ones.
class Tombstones {
 public:
  Tombstones share() {
    own_ = false;
    return *this;
  }
  std::size_t count() const { return count_; }
  std::size_t memory() const { return marks_->capacity(); }
  const std::uint8_t* data() const { return marks_->data(); }
  bool operator[](std::size_t node) const { return (*marks_)[node] != 0; }

  // Room for nodes 0..nodes-1. New ones are not deleted.
  void cover(std::size_t nodes) {
    if (nodes > marks_->size()) replace(std::max(nodes, 2 * marks_->size()));
  }
  // Marks nodes that are covered; returns how many were not deleted before.
  template <typename Nodes>
  std::size_t mark(const Nodes& nodes) {
    if (nodes.empty()) return 0;
    if (!own_) replace(marks_->size());
    std::size_t fresh = 0;
    for (const auto node : nodes) {
      fresh += (*marks_)[node] == 0 ? 1 : 0;
      (*marks_)[node] = 1;
    }
    count_ += fresh;
    return fresh;
  }

 private:
  void replace(std::size_t room) {
    auto own = std::make_shared<std::vector<std::uint8_t>>(*marks_);
    own->resize(room, 0);
    marks_ = std::move(own);
    own_ = true;
  }

  std::shared_ptr<std::vector<std::uint8_t>> marks_ = std::make_shared<std::vector<std::uint8_t>>();
  std::size_t count_ = 0;
  bool own_ = false;
};

struct Snapshot {
  std::size_t size = 0;      // nodes that may be results, of which ...
  std::size_t live = 0;      // ... so many are not deleted
  Tombstones deleted;        // covers at least `size` nodes
  std::size_t passable = 0;  // nodes that may be passed through, at least `size`: an add has filled them and is about to link them
  std::uint32_t entry = kNone;
};

// The latest snapshot.
class Published {
 public:
  std::shared_ptr<const Snapshot> get() const {
    const std::lock_guard lock(mutex_);
    return latest_;
  }
  void set(std::shared_ptr<const Snapshot> next) {
    const std::lock_guard lock(mutex_);
    latest_.swap(next);  // what was there is freed after the lock
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const Snapshot> latest_ = std::make_shared<const Snapshot>();
};

}  // namespace nf::graph
