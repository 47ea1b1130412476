#include "kernels/insert_key/contract.h"

namespace nf::kernels {
namespace {

const char* target() { return "scalar"; }

size_t insert(uint64_t* keys, size_t size, uint64_t key) {
  const uint64_t* first = keys;
  size_t n = size;
  for (; n > 1; n -= n / 2) first += first[n / 2 - 1] < key ? n / 2 : 0;
  const size_t at = static_cast<size_t>(first - keys) + (n == 1 && *first < key ? 1 : 0);
  __builtin_memmove(keys + at + 1, keys + at, (size - at) * sizeof(key));
  keys[at] = key;
  return at;
}

}  // namespace

const InsertKey insert_key_scalar = {insert, target};

}  // namespace nf::kernels
