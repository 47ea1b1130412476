// hadamard: one round of a fast rotation.
//
// `y` holds `count` values; each is multiplied by its place in `signs`, then `size` of them from `begin` on, a power of two of at least 16, go
// through a Hadamard transform that is not scaled: y[i], y[i + half] -> their sum and difference for half = size / 2, size / 4, ... 1. Each value is
// the same float32 sums and differences of the same numbers on every target, so all give the same bits. Reads and writes nothing else.
#pragma once

#include <stddef.h>

namespace nf::kernels {

struct Hadamard {
  void (*round)(float* y, const float* signs, size_t count, size_t begin, size_t size);
  const char* (*target)();
};

extern const Hadamard hadamard_scalar;
#if defined(__x86_64__)
extern const Hadamard hadamard_avx2;
extern const Hadamard hadamard_avx512;
#endif

}  // namespace nf::kernels
