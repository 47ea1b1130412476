// bfloat16: the upper half of a float32.
#pragma once

#include <cstdint>
#include <cstring>

namespace nf {

// To nearest, ties to even: |value - result| <= 2^-8 |value| (denormals aside). Values beyond the largest finite bfloat16 become that.
inline std::uint16_t to_bf16(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const std::uint32_t rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
  const bool overflowed = (rounded & 0x7F80u) == 0x7F80u;
  return static_cast<std::uint16_t>(overflowed ? (bits >> 16 & 0x8000u) | 0x7F7Fu : rounded);
}

inline float from_bf16(std::uint16_t code) {
  const std::uint32_t bits = static_cast<std::uint32_t>(code) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

}  // namespace nf
