// The container's numbers, shared by its writer and its reader (the picture is in sections.h).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace nf::storage {

constexpr char kMagic[8] = {'N', 'E', 'A', 'R', 'F', 'L', 'D', '\n'};
constexpr std::size_t kHeaderBytes = 64;
constexpr std::size_t kEntryBytes = 48;
constexpr std::size_t kNameBytes = 24;
constexpr std::size_t kKindBytes = 8;
constexpr std::size_t kAlignment = 64;
// No index has more than a dozen sections; a larger count is damage and must not make the reader allocate.
constexpr std::uint32_t kMaxSections = 1024;

inline std::size_t aligned(std::size_t offset) { return (offset + kAlignment - 1) / kAlignment * kAlignment; }

inline void put32(unsigned char* p, std::uint32_t value) {
  for (int i = 0; i < 4; ++i) p[i] = static_cast<unsigned char>(value >> (8 * i));
}

inline void put64(unsigned char* p, std::uint64_t value) {
  for (int i = 0; i < 8; ++i) p[i] = static_cast<unsigned char>(value >> (8 * i));
}

inline std::uint32_t get32(const unsigned char* p) {
  std::uint32_t value = 0;
  for (int i = 3; i >= 0; --i) value = value << 8 | p[i];
  return value;
}

inline std::uint64_t get64(const unsigned char* p) {
  std::uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | p[i];
  return value;
}

}  // namespace nf::storage
