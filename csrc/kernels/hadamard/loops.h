// What all targets of hadamard do the same way; compilers take as many values at once as the target has. Everything has internal linkage: each
// file is compiled for its own target.
#pragma once

#include <stddef.h>

namespace nf::kernels {
namespace {

inline void multiply(float* y, const float* signs, size_t count) {
  for (size_t i = 0; i < count; ++i) y[i] *= signs[i];
}

// The steps whose halves are at least `least`.
inline void wide_steps(float* y, size_t size, size_t least) {
  for (size_t half = size / 2; half >= least; half /= 2) {
    for (size_t begin = 0; begin < size; begin += 2 * half) {
      float *a = y + begin, *b = a + half;
      for (size_t i = 0; i < half; ++i) {
        const float sum = a[i] + b[i], gap = a[i] - b[i];
        a[i] = sum;
        b[i] = gap;
      }
    }
  }
}

// The last two steps stay within four values.
inline void last_steps(float* y, size_t size) {
  for (size_t i = 0; i < size; i += 4) {
    const float a = y[i] + y[i + 2], b = y[i + 1] + y[i + 3], c = y[i] - y[i + 2], d = y[i + 1] - y[i + 3];
    y[i] = a + b;
    y[i + 1] = a - b;
    y[i + 2] = c + d;
    y[i + 3] = c - d;
  }
}

inline void whole_round(float* y, const float* signs, size_t count, size_t begin, size_t size) {
  multiply(y, signs, count);
  wide_steps(y + begin, size, 4);
  last_steps(y + begin, size);
}

}  // namespace
}  // namespace nf::kernels
