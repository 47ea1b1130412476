#include "codec/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace nf::codec {
namespace {

// Adding 1.5 * 2^23 to a float32 below 2^22 leaves its nearest integer in the low bits, in baseline vector code.
constexpr float kToInteger = 0x1.8p23f;

}  // namespace

float peak_of(const float* row, std::size_t dim) {
  float peak = 0.0f;
  for (std::size_t i = 0; i < dim; ++i) peak = std::max(peak, std::fabs(row[i]));
  return peak;
}

float scale_for(float peak) {
  if (peak == 0.0f) return 0.0f;
  float scale = static_cast<float>(static_cast<double>(peak) / kCodeMax);
  if (static_cast<double>(scale) * kCodeMax < peak) scale = std::nextafter(scale, std::numeric_limits<float>::infinity());
  std::uint32_t bits;
  std::memcpy(&bits, &scale, sizeof(bits));
  bits = (bits + 0xFFu) & ~0xFFu;
  std::memcpy(&scale, &bits, sizeof(scale));
  if (static_cast<double>(scale) * kCodeMax <= std::numeric_limits<float>::max()) return scale;
  bits -= 0x100u;
  std::memcpy(&scale, &bits, sizeof(scale));
  return scale;
}

void quantize(const float* row, std::size_t dim, float scale, std::int8_t* codes) {
  if (scale >= std::numeric_limits<float>::min()) {
    const float inverse = 1.0f / scale;
    for (std::size_t i = 0; i < dim; ++i) {
      const float shifted = row[i] * inverse + kToInteger;
      std::int32_t bits;
      std::memcpy(&bits, &shifted, sizeof(bits));
      codes[i] = static_cast<std::int8_t>(bits);
    }
  } else {
    // A denormal scale has no finite reciprocal. (At the other end 127.5 scales may exceed the largest float32, so no code needs a limit.)
    for (std::size_t i = 0; i < dim; ++i) codes[i] = scale == 0.0f ? 0 : static_cast<std::int8_t>(std::nearbyint(static_cast<double>(row[i]) / scale));
  }
}

}  // namespace nf::codec
