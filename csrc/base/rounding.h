// From float64 to the nearest float32 on one side.
#pragma once

#include <cmath>
#include <limits>

namespace nf {

inline float rounded_down(double value) {
  const float rounded = static_cast<float>(value);
  return rounded > value ? std::nextafter(rounded, -std::numeric_limits<float>::infinity()) : rounded;
}

inline float rounded_up(double value) { return -rounded_down(-value); }

}  // namespace nf
