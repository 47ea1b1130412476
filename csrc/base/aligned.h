// Owned memory on a 64-byte boundary (one cache line, one zmm register): no kernel load of an aligned row crosses a line.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

namespace nf {

constexpr std::size_t kCacheLine = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;  // of x86-64 and most Arm systems

// Memory that begins on a huge page and asks for such pages, for data that is read in jumps: 4 KiB pages cost a table walk at most of them.
// Freed by std::free. Throws std::bad_alloc.
inline void* huge_memory(std::size_t bytes) {
  void* memory = nullptr;
  if (::posix_memalign(&memory, kHugePage, bytes) != 0) throw std::bad_alloc();
  (void)::madvise(memory, bytes, MADV_HUGEPAGE);  // advice only: without huge pages all works as before
  return memory;
}

// Bytes from which a buffer asks for huge pages: at most a third of it is then left over in the last one.
constexpr std::size_t kHugeFrom = 3 * kHugePage;

// A fixed-size array of trivially copyable elements; contents are uninitialized unless zero() is called.
template <typename T>
class AlignedBuffer {
  static_assert(std::is_trivially_copyable<T>::value, "raw memory only");

 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(std::size_t count) : size_(count) {
    if (count == 0) return;
    if (count > (std::numeric_limits<std::size_t>::max() - kCacheLine) / sizeof(T)) throw std::bad_alloc();
    const std::size_t bytes = (count * sizeof(T) + kCacheLine - 1) / kCacheLine * kCacheLine;
    data_ = static_cast<T*>(bytes < kHugeFrom ? std::aligned_alloc(kCacheLine, bytes) : huge_memory(bytes));
    if (data_ == nullptr) throw std::bad_alloc();
  }
  ~AlignedBuffer() { std::free(data_); }
  AlignedBuffer(AlignedBuffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::size_t size() const { return size_; }
  T& operator[](std::size_t i) { return data_[i]; }
  const T& operator[](std::size_t i) const { return data_[i]; }
  void zero() {
    if (data_ != nullptr) std::memset(static_cast<void*>(data_), 0, size_ * sizeof(T));
  }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace nf
