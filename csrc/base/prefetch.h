// Memory that is needed soon, fetched without waiting for it.
#pragma once

#include <cstddef>

#include "base/aligned.h"

namespace nf {

// Always inlined: gcc 12 takes a function of nothing but prefetches for one without effects, and drops every call of it that it has not inlined.
// Tests count the instructions that are left (tests/test_native.py).
[[gnu::always_inline]] inline void prefetch(const void* from, std::size_t bytes) {
  const char* line = static_cast<const char*>(from);
  for (std::size_t at = 0; at < bytes; at += kCacheLine) __builtin_prefetch(line + at);
}

}  // namespace nf
