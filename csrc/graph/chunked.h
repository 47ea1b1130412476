// Rows of equal width that grow without ever moving: pointers into them stay valid, and nothing that exists is copied.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

namespace nf::graph {

template <class T>
class Chunked {
 public:
  // Rows begin on cache lines: a row of 384 floats is then 24 lines and never 25.
  static constexpr std::size_t kLine = 64;
  // Chunks of about 1 MiB: an index of one row wastes little, one of a million rows has a few thousand chunks.
  static constexpr std::size_t kChunkBytes = std::size_t{1} << 20;

  Chunked(std::size_t width, T fill) : width_(width), fill_(fill) {
    stride_ = (width * sizeof(T) + kLine - 1) / kLine * kLine / sizeof(T);
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
      chunks_.emplace_back(static_cast<T*>(::operator new(values * sizeof(T), std::align_val_t{kLine})));
    }
    for (std::size_t row = size_; row < rows; ++row) std::fill_n((*this)[row], stride_, fill_);
    size_ = std::max(size_, rows);
  }

  // Drops rows from the end; their memory is kept for the next ones.
  void shrink(std::size_t rows) { size_ = std::min(size_, rows); }

 private:
  struct Free {
    void operator()(T* p) const { ::operator delete(p, std::align_val_t{kLine}); }
  };

  std::size_t mask() const { return (std::size_t{1} << shift_) - 1; }

  std::size_t width_;
  std::size_t stride_;
  T fill_;
  unsigned shift_ = 0;
  std::size_t size_ = 0;
  std::vector<std::unique_ptr<T, Free>> chunks_;
};

}  // namespace nf::graph
