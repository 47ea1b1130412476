// insert_key: one more number in a rising array.
//
// `keys` holds `size` numbers, none greater than the next, and has room for one more. insert puts `key` before the first number that is not
// less and returns its place; reads and writes nothing beyond size + 1 numbers. All targets do the same.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace nf::kernels {

struct InsertKey {
  size_t (*insert)(uint64_t* keys, size_t size, uint64_t key);
  const char* (*target)();
};

extern const InsertKey insert_key_scalar;
#if defined(__x86_64__)
extern const InsertKey insert_key_avx512;
#endif

}  // namespace nf::kernels
