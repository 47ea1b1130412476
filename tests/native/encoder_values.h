// Values as the encoder's kernels hold them, told and drawn by plain loops.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>

#include "base/bf16.h"
#include "oracle.h"

namespace nf::test {

// float16 as a number: sign, 5 bits of exponent, 10 of fraction.
inline double of_f16(std::uint16_t half) {
  const int exponent = half >> 10 & 31, fraction = half & 1023;
  const double size = exponent == 31 ? (fraction == 0 ? HUGE_VAL : std::nan("")) : exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return (half >> 15) != 0 ? -size : size;
}

// To nearest, by looking among all of them.
inline std::uint16_t to_f16(double value) {
  std::uint16_t low = 0, high = 0x7BFF;
  while (high - low > 1) {
    const auto middle = static_cast<std::uint16_t>((low + high) / 2);
    (of_f16(middle) <= std::fabs(value) ? low : high) = middle;
  }
  const std::uint16_t nearest = std::fabs(value) - of_f16(low) <= of_f16(high) - std::fabs(value) ? low : high;
  return static_cast<std::uint16_t>(nearest | (value < 0.0 ? 0x8000 : 0));
}

inline double gelu(double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }

template <typename T>
double widened(T value) {
  if constexpr (sizeof(T) == 2) {
    return static_cast<double>(from_bf16(value));
  } else {
    return static_cast<double>(value);
  }
}

template <typename T>
T drawn(Random& random, float size = 1.0f) {
  const float value = size * std::normal_distribution<float>()(random);
  if constexpr (sizeof(T) == 2) {
    return to_bf16(value);
  } else {
    return value;
  }
}

}  // namespace nf::test
