#include "kernels/insert_key/contract.h"
#include "kernels/insert_key/loops.h"

namespace nf::kernels {
namespace {

const char* target() { return "scalar"; }

size_t place_of(const uint64_t* keys, size_t size, uint64_t key) {
  const uint64_t* first = keys;
  size_t n = size;
  for (; n > 1; n -= n / 2) first += first[n / 2 - 1] < key ? n / 2 : 0;
  return static_cast<size_t>(first - keys) + (n == 1 && *first < key ? 1 : 0);
}

size_t insert(uint64_t* keys, size_t size, uint64_t key) {
  const size_t at = place_of(keys, size, key);
  __builtin_memmove(keys + at + 1, keys + at, (size - at) * sizeof(key));
  keys[at] = key;
  return at;
}

size_t merge(uint64_t* keys, size_t size, uint64_t* fresh, size_t n) {
  sort(fresh, n);
  size_t end = size;
  while (n-- > 0) {
    const size_t at = place_of(keys, end, fresh[n]);
    __builtin_memmove(keys + at + n + 1, keys + at, (end - at) * sizeof(*keys));
    keys[at + n] = fresh[n];
    end = at;
  }
  return end;
}

}  // namespace

const InsertKey insert_key_scalar = {insert, merge, target};

}  // namespace nf::kernels
