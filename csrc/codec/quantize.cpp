#include "codec/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/code_i8/contract.h"

namespace nf::codec {
float peak_of(const float* row, std::size_t dim) {
  // As integers, sizes stand in order, and the compiler may take several at once (of floats it may not, for the sake of NaN).
  std::int32_t peak = 0;
  for (std::size_t i = 0; i < dim; ++i) {
    std::int32_t bits;
    std::memcpy(&bits, row + i, sizeof(bits));
    peak = std::max(peak, bits & 0x7FFFFFFF);
  }
  float size;
  std::memcpy(&size, &peak, sizeof(size));
  return size;
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
    kernels::code_i8_scalar.codes(row, dim, 1.0f / scale, codes);
  } else {
    // A denormal scale has no finite reciprocal. (At the other end 127.5 scales may exceed the largest float32, so no code needs a limit.)
    for (std::size_t i = 0; i < dim; ++i) codes[i] = scale == 0.0f ? 0 : static_cast<std::int8_t>(std::nearbyint(static_cast<double>(row[i]) / scale));
  }
}

}  // namespace nf::codec
