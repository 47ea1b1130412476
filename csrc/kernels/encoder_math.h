// 2^x, GELU and bfloat16 in plain float32 operations, for the readable forms of the encoder's kernels. No library function: its last bits
// would differ from machine to machine. Everything here has internal linkage, so files of different instruction sets may include it.
#pragma once

#include <stdint.h>

namespace nf::kernels {
namespace {

// To nearest, ties to even; finite values beyond the largest bfloat16 become infinite.
inline uint16_t half_of(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  return static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

inline float of_half(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

// The nearest whole number, ties to even, for |value| < 2^22.
inline float nearest(float value) {
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23: here float32 numbers are one apart
  return (value + kShift) - kShift;
}

// 2^x for x <= 0, off by at most 2^-22 relatively; 0 below -126. The polynomial is the series of e^(r ln 2) to r^7: the rest is below 6e-9 for |r| <= 1/2.
inline float exp2_of(float x) {
  if (!(x >= -126.0f)) return 0.0f;
  const float whole = nearest(x), r = x - whole;
  float p = 1.5252734e-5f;
  p = p * r + 1.5403530e-4f;
  p = p * r + 1.3333558e-3f;
  p = p * r + 9.6181291e-3f;
  p = p * r + 5.5504109e-2f;
  p = p * r + 2.4022651e-1f;
  p = p * r + 6.9314718e-1f;
  p = p * r + 1.0f;
  const uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(whole) + 127) << 23;
  float power;
  __builtin_memcpy(&power, &bits, sizeof(power));
  return p * power;
}

// x * Phi(x). Abramowitz and Stegun 7.1.26 for 1 - erf(|x| / sqrt 2), off by at most 1.5e-7.
inline float gelu_of(float x) {
  const float z = (x < 0.0f ? -x : x) * 0.70710678f;
  const float t = 1.0f / (1.0f + 0.3275911f * z);
  float p = 1.061405429f;
  p = p * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const float tail = 0.5f * (p * t) * exp2_of(-1.44269504f * (z * z));
  return x < 0.0f ? x * tail : x - x * tail;
}

}  // namespace
}  // namespace nf::kernels
