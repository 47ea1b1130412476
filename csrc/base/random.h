// Hashes that stand in for a stream of random numbers: the same on every machine and in every order of work.
#pragma once

#include <cstdint>

namespace nf {

constexpr std::uint64_t kGolden64 = 0x9E3779B97F4A7C15u;  // 2^64 over the golden ratio: the step of splitmix64's counter

// The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
inline std::uint64_t mix64(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

}  // namespace nf
