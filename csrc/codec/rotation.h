// A random rotation of space, drawn uniformly from all of them (Haar measure) and fixed by its seed.
//
// A product of reflections, each of which sends the first axis of what is left to a uniformly random direction (G. W. Stewart, "The efficient
// generation of random orthogonal matrices", SIAM J. Numer. Anal. 17, 1980). Random signs with Hadamard transforms would take
// d log d steps a vector instead of d^2, but their error is only known to be small, not how it is distributed; the bounds in
// score/signs.h ask for the uniform distribution.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/aligned.h"

namespace nf::codec {

class Rotation {
 public:
  Rotation(std::size_t dim, std::uint64_t seed, int threads);

  // Rotates `count` dense rows. Each value is off by at most (dim + 8) 2^-24 of its row's length: a float32 inner product with a float32
  // row of the matrix.
  void apply(const float* rows, std::size_t count, float* out) const;

 private:
  std::size_t dim_;
  AlignedBuffer<float> matrix_;  // row by row
};

}  // namespace nf::codec
