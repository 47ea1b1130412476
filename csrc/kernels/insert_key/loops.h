// What all targets of insert_key do the same way. Everything has internal linkage: each file is compiled for its own target.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace nf::kernels {
namespace {

// Few numbers: places by comparison with their neighbours.
inline void sort(uint64_t* fresh, size_t n) {
  for (size_t i = 1; i < n; ++i) {
    const uint64_t key = fresh[i];
    size_t at = i;
    for (; at > 0 && fresh[at - 1] > key; --at) fresh[at] = fresh[at - 1];
    fresh[at] = key;
  }
}

}  // namespace
}  // namespace nf::kernels
