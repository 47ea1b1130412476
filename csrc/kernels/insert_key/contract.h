// insert_key: more numbers in a rising array.
//
// `keys` holds `size` numbers, none greater than the next, and has room for one more. insert puts `key` before the first number that is not
// less and returns its place; reads and writes nothing beyond size + 1 numbers. merge does so with `n` numbers at once, 1 to kMostMerged, for
// which there is room; it may sort `fresh` and returns the place of the least. Each number of the array moves once, not once for each number before
// it, and no load waits for the store of the insertion before. All targets do the same.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace nf::kernels {

constexpr size_t kMostMerged = 64;

struct InsertKey {
  size_t (*insert)(uint64_t* keys, size_t size, uint64_t key);
  size_t (*merge)(uint64_t* keys, size_t size, uint64_t* fresh, size_t n);
  const char* (*target)();
};

extern const InsertKey insert_key_scalar;
#if defined(__x86_64__)
extern const InsertKey insert_key_avx512;
#endif

}  // namespace nf::kernels
