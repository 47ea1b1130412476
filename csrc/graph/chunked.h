// Rows of equal width that grow without ever moving: pointers into them stay valid, and nothing that exists is copied.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "base/aligned.h"

namespace nf::graph {

template <class T>
class Chunked {
 public:
  // Rows begin on cache lines: a row of 384 floats is then 24 lines and never 25.
  // Chunks of at most 8 MiB, all but the first in huge pages. The first is ordinary memory, of which a small index touches only what it
  // fills. In chunks of one huge page each, rows of 1,536 bytes would leave a quarter of every page empty.
  static constexpr std::size_t kChunkBytes = 4 * kHugePage;

  Chunked(std::size_t width, T fill) : width_(width), fill_(fill) {
    stride_ = (width * sizeof(T) + kCacheLine - 1) / kCacheLine * kCacheLine / sizeof(T);
    while (shift_ < 16 && (std::size_t{2} << shift_) * stride_ * sizeof(T) <= kChunkBytes) ++shift_;
  }

  std::size_t size() const { return size_; }
  std::size_t width() const { return width_; }

  T* operator[](std::size_t row) { return chunks_[row >> shift_].get() + (row & mask()) * stride_; }
  const T* operator[](std::size_t row) const { return chunks_[row >> shift_].get() + (row & mask()) * stride_; }

  // All places of new rows hold the fill value. Strong guarantee: on bad_alloc the size is what it was.
  void grow(std::size_t rows) {
    const std::size_t needed = (rows + mask()) >> shift_;
    const std::size_t values = stride_ << shift_;
    while (chunks_.size() < needed) {
      chunks_.reserve(chunks_.size() + 1);
      chunks_.emplace_back(chunks_.empty() ? plain(values * sizeof(T)) : static_cast<T*>(huge_memory(values * sizeof(T))));
    }
    for (std::size_t row = size_; row < rows; ++row) std::fill_n((*this)[row], stride_, fill_);
    size_ = std::max(size_, rows);
  }

  // Drops rows from the end; their memory is kept for the next ones.
  void shrink(std::size_t rows) { size_ = std::min(size_, rows); }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };

  static T* plain(std::size_t bytes) {
    void* const memory = std::aligned_alloc(kCacheLine, bytes);
    if (memory == nullptr) throw std::bad_alloc();
    return static_cast<T*>(memory);
  }

  std::size_t mask() const { return (std::size_t{1} << shift_) - 1; }

  std::size_t width_;
  std::size_t stride_;
  T fill_;
  unsigned shift_ = 0;
  std::size_t size_ = 0;
  std::vector<std::unique_ptr<T, Free>> chunks_;
};

}  // namespace nf::graph
