// The loops of code_i8, which each target's compiler takes as many values of at once as it has lanes. Everything has internal linkage: each file
// is compiled for its own target.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace nf::kernels {
namespace {

constexpr float kMostFloat = 0x1.fffffep127f;

// Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
inline int8_t nearest(float value) {
  const float shifted = value + 0x1.8p23f;
  int32_t bits;
  __builtin_memcpy(&bits, &shifted, sizeof(bits));
  return static_cast<int8_t>(bits - 0x4B400000);
}

inline float within(float value, float most) {
  const float below = value < most ? value : most;
  return below > -most ? below : -most;
}

inline float rest(const float* row, const float* centre, size_t n, float* out) {
  int32_t peak = 0;
  for (size_t i = 0; i < n; ++i) {
    // Two values near the ends of float32 may differ by more than it holds.
    out[i] = within(row[i] - centre[i], kMostFloat);
    int32_t bits;
    __builtin_memcpy(&bits, out + i, sizeof(bits));
    bits &= 0x7FFFFFFF;
    peak = bits > peak ? bits : peak;
  }
  float size;
  __builtin_memcpy(&size, &peak, sizeof(size));
  return size;
}

inline void codes(const float* rest, size_t n, float inverse, int8_t* out) {
  for (size_t i = 0; i < n; ++i) out[i] = nearest(rest[i] * inverse);
}

inline void fine(const float* rest, const int8_t* codes, size_t n, float scale, float steps, int8_t* out) {
  for (size_t i = 0; i < n; ++i) out[i] = nearest(within((rest[i] - scale * static_cast<float>(codes[i])) * steps, 127.0f));
}

}  // namespace
}  // namespace nf::kernels
