// From the token vectors of one text to its own.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstring>

#include "encoder/shape.h"

namespace nf::encoder {

// Mean of all rows, the first or the last one; then, where the model ends with it, a division by the Euclidean norm (a zero row stays zero).
inline void pool_rows(const Shape& shape, const float* rows, std::size_t tokens, std::size_t stride, float* out) {
  const std::size_t width = shape.width;
  if (shape.pooling == Pooling::mean) {
    std::memcpy(out, rows, width * sizeof(float));
    for (std::size_t i = 1; i < tokens; ++i) {
      for (std::size_t j = 0; j < width; ++j) out[j] += rows[i * stride + j];
    }
    for (std::size_t j = 0; j < width; ++j) out[j] /= static_cast<float>(tokens);
  } else {
    std::memcpy(out, rows + (shape.pooling == Pooling::cls ? 0 : (tokens - 1) * stride), width * sizeof(float));
  }
  if (shape.normalize == 0) return;
  double square = 0.0;
  for (std::size_t j = 0; j < width; ++j) square += static_cast<double>(out[j]) * static_cast<double>(out[j]);
  const float inverse = square > 0.0 ? static_cast<float>(1.0 / std::sqrt(square)) : 0.0f;
  for (std::size_t j = 0; j < width; ++j) out[j] *= inverse;
}

}  // namespace nf::encoder
