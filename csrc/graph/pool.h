// The nearest candidates of a walk so far, in order, in one array: which are still to be expanded is a bit of each.
//
// Two heaps, as the paper's algorithm 2 has them, move every candidate twice and look for the end in two places. Of some hundred candidates
// a sorted array is faster: a binary search without branches, then one short move of memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/dispatch.h"

namespace nf::graph {

// A candidate as one number that sorts by distance, then by node: 32 bits of distance, 31 of the node, and 1 when it has been expanded.
using Key = std::uint64_t;

inline Key key_of(float distance, std::uint32_t node) {
  std::uint32_t bits;
  std::memcpy(&bits, &distance, sizeof(bits));
  // As unsigned numbers, positive floats stand in order and negative ones in reverse.
  bits ^= (bits >> 31) != 0 ? 0xFFFFFFFFu : 0x80000000u;
  return Key{bits} << 32 | Key{node} << 1;
}

inline std::uint32_t node_of(Key key) { return static_cast<std::uint32_t>(key) >> 1; }

inline float distance_of(Key key) {
  std::uint32_t bits = static_cast<std::uint32_t>(key >> 32);
  bits ^= (bits >> 31) != 0 ? 0x80000000u : 0xFFFFFFFFu;
  float distance;
  std::memcpy(&distance, &bits, sizeof(distance));
  return distance;
}

class Pool {
 public:
  // The kernel that makes room for a candidate; scalar's until this is called.
  void use(const kernels::InsertKey& kernel) { kernel_ = kernel; }

  void reset(std::size_t capacity) {
    if (keys_.size() < capacity + kernels::kMostMerged) keys_.resize(capacity + kernels::kMostMerged);
    capacity_ = capacity;
    size_ = next_ = waiting_ = 0;
  }

  std::size_t size() const { return size_; }
  Key operator[](std::size_t i) const { return keys_[i]; }
  // What a candidate must lie below to be taken.
  Key limit() const { return size_ < capacity_ ? ~Key{0} : keys_[size_ - 1]; }

  void offer(Key key) {
    if (key >= limit()) return;
    if (size_ < capacity_) ++size_;
    const std::size_t at = kernel_.insert(keys_.data(), size_ - 1, key);
    if (at < next_) next_ = at;
  }
  // Offers that are taken together by settle(), which comes before anything else is asked.
  void add(Key key) {
    if (key >= limit()) return;
    fresh_[waiting_++] = key;
    if (waiting_ == kernels::kMostMerged) settle();
  }
  void settle() {
    if (waiting_ == 0) return;
    const std::size_t at = kernel_.merge(keys_.data(), size_, fresh_, waiting_);
    size_ = std::min(size_ + waiting_, capacity_);
    waiting_ = 0;
    if (at < next_) next_ = at;
  }

  // True while some candidate has not been expanded; the nearest such is next().
  bool open() const { return next_ < size_; }
  std::uint32_t next() const { return node_of(keys_[next_]); }
  Key next_key() const { return keys_[next_]; }
  std::uint32_t expand() {
    const std::uint32_t node = next();
    keys_[next_] |= 1;
    while (++next_ < size_ && (keys_[next_] & 1) != 0) {
    }
    return node;
  }

 private:
  std::vector<Key> keys_;
  Key fresh_[kernels::kMostMerged];
  std::size_t size_ = 0, capacity_ = 0, next_ = 0, waiting_ = 0;
  kernels::InsertKey kernel_ = kernels::insert_key_scalar;
};

}  // namespace nf::graph
