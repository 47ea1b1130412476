// Symmetric int8 codes with one scale: x = scale * code + rest, |code| <= 127.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nf::codec {

constexpr float kCodeMax = 127.0f;

// The largest size of a value; NaN counts as larger than any.
float peak_of(const float* row, std::size_t dim);

// The smallest float32 with at most 16 significant bits that is >= peak / 127, or the largest such whose 127-fold stays finite. With so few
// bits scale * code is a float32 without rounding.
float scale_for(float peak);

// The codes of a row under a scale that scale_for() gave for its peak.
void quantize(const float* row, std::size_t dim, float scale, std::int8_t* codes);

}  // namespace nf::codec
