// What measurements at first use share: numbers that look random and are the same everywhere, and the time of a short piece of work.
#pragma once

#include <chrono>
#include <cstdint>
#include <limits>

namespace nf::kernels {

// A fixed sequence: the low bits of a linear congruential generator's high half (Knuth's constants for 64 bits).
struct Sequence {
  std::uint64_t state = 1;
  int next() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<int>(state >> 33);
  }
};

// 48 queries times 128 rows of 384 dimensions take some 30 us of int8 products with AVX2: best of nine is steady to a few per cent.
template <typename Work>
double best_seconds(const Work& work) {
  double best = std::numeric_limits<double>::infinity();
  for (int round = 0; round < 9; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    if (taken.count() < best) best = taken.count();
  }
  return best;
}

}  // namespace nf::kernels
