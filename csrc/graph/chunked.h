// Arrays that grow without ever moving: pointers into them stay valid, nothing that exists is copied, and searches may read what is
// published (graph/snapshot.h) while one writer makes room for more.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "base/aligned.h"

namespace nf::graph {

// One place of a neighbour list: the writer changes it while searches read it. A reader gets the old node or the new one, both of which exist.
class Link {
 public:
  Link(std::uint32_t node) : node_(node) {}
  Link(const Link& other) : node_(other) {}
  Link& operator=(std::uint32_t node) {
    node_.store(node, std::memory_order_relaxed);
    return *this;
  }
  Link& operator=(const Link& other) { return *this = static_cast<std::uint32_t>(other); }
  operator std::uint32_t() const { return node_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint32_t> node_;
};
static_assert(sizeof(Link) == sizeof(std::uint32_t), "lists are written to files as they are");

// Chunks of equal size and a table of where they are. A table that is outgrown is kept: a search may be reading it, and all that were
// outgrown are together no larger than the last.
template <class T>
class Chunks {
 public:
  explicit Chunks(std::size_t bytes) : bytes_(bytes) {}

  T* operator[](std::size_t chunk) const { return table_.load(std::memory_order_acquire)[chunk]; }
  std::size_t memory() const { return chunks_.size() * bytes_; }

  void grow(std::size_t count) {
    while (chunks_.size() < count) {
      if (chunks_.size() == room_) widen();
      chunks_.reserve(chunks_.size() + 1);
      chunks_.emplace_back(chunks_.empty() ? plain(bytes_) : static_cast<T*>(huge_memory(bytes_)));
      tables_.back()[chunks_.size() - 1] = chunks_.back().get();
    }
  }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };

  static T* plain(std::size_t bytes) {
    void* const memory = std::aligned_alloc(kCacheLine, bytes);
    if (memory == nullptr) throw std::bad_alloc();
    return static_cast<T*>(memory);
  }

  void widen() {
    const std::size_t room = std::max<std::size_t>(8, 2 * room_);
    tables_.reserve(tables_.size() + 1);
    tables_.push_back(std::make_unique<T*[]>(room));
    for (std::size_t i = 0; i < chunks_.size(); ++i) tables_.back()[i] = chunks_[i].get();
    room_ = room;
    table_.store(tables_.back().get(), std::memory_order_release);
  }

  std::size_t bytes_;
  std::size_t room_ = 0;
  std::atomic<T* const*> table_{nullptr};
  std::vector<std::unique_ptr<T*[]>> tables_;
  std::vector<std::unique_ptr<T, Free>> chunks_;
};

// Rows of equal width, each beginning on a cache line: a row of 384 floats is then 24 lines and never 25.
template <class T>
class Chunked {
 public:
  // Chunks of at most 8 MiB, all but the first in huge pages. The first is ordinary memory, of which a small index touches only what it
  // fills. In chunks of one huge page each, rows of 1,536 bytes would leave a quarter of every page empty.
  static constexpr std::size_t kChunkBytes = 4 * kHugePage;

  Chunked(std::size_t width, T fill)
      : width_(width), stride_(stride_of(width)), fill_(fill), shift_(shift_of(stride_)), chunks_((stride_ << shift_) * sizeof(T)) {}

  std::size_t size() const { return size_; }
  std::size_t width() const { return width_; }
  std::size_t memory() const { return chunks_.memory(); }

  T* operator[](std::size_t row) { return chunks_[row >> shift_] + (row & mask()) * stride_; }
  const T* operator[](std::size_t row) const { return chunks_[row >> shift_] + (row & mask()) * stride_; }

  // All places of new rows hold the fill value. Strong guarantee: on bad_alloc the size is what it was.
  void grow(std::size_t rows) {
    if (rows <= size_) return;
    chunks_.grow((rows + mask()) >> shift_);
    for (std::size_t row = size_; row < rows; ++row) std::uninitialized_fill_n((*this)[row], stride_, fill_);
    size_ = rows;
  }

 private:
  static std::size_t stride_of(std::size_t width) { return (width * sizeof(T) + kCacheLine - 1) / kCacheLine * kCacheLine / sizeof(T); }
  static unsigned shift_of(std::size_t stride) {
    unsigned shift = 0;
    while (shift < 16 && (std::size_t{2} << shift) * stride * sizeof(T) <= kChunkBytes) ++shift;
    return shift;
  }
  std::size_t mask() const { return (std::size_t{1} << shift_) - 1; }

  std::size_t width_, stride_;
  T fill_;
  unsigned shift_;
  Chunks<T> chunks_;
  std::size_t size_ = 0;
};

// One value for each node, without padding.
template <class T>
class Column {
 public:
  std::size_t size() const { return size_; }
  std::size_t memory() const { return chunks_.memory(); }
  T& operator[](std::size_t at) { return chunks_[at >> kShift][at & kMask]; }
  const T& operator[](std::size_t at) const { return chunks_[at >> kShift][at & kMask]; }

  // New values are zero. Strong guarantee.
  void grow(std::size_t size) {
    if (size <= size_) return;
    chunks_.grow((size + kMask) >> kShift);
    for (std::size_t at = size_; at < size; ++at) new (&(*this)[at]) T();
    size_ = size;
  }

 private:
  static constexpr unsigned kShift = 16;
  static constexpr std::size_t kMask = (std::size_t{1} << kShift) - 1;
  Chunks<T> chunks_{sizeof(T) << kShift};
  std::size_t size_ = 0;
};

}  // namespace nf::graph
