#include "kernels/insert_key/contract.h"
#include "kernels/insert_key/loops.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace nf::kernels {
namespace {

const char* target() { return "avx512"; }

constexpr size_t kLanes = 8;
// Of so many numbers all are compared: loads that do not wait for each other. Of more, half are left out at a time.
constexpr size_t kCounted = 64;

inline size_t place_of(const uint64_t* keys, size_t size, uint64_t key) {
  size_t first = 0;
  while (size > kCounted) {
    const size_t half = size / 2;
    first += keys[first + half - 1] < key ? half : 0;
    size -= half;
  }
  const __m512i wanted = _mm512_set1_epi64(static_cast<long long>(key));
  size_t below = 0, i = 0;
  for (; i + kLanes <= size; i += kLanes) below += static_cast<size_t>(__builtin_popcount(_mm512_cmplt_epu64_mask(_mm512_loadu_si512(keys + first + i), wanted)));
  const __mmask8 rest = static_cast<__mmask8>((1u << (size - i)) - 1u);
  below += static_cast<size_t>(__builtin_popcount(_mm512_mask_cmplt_epu64_mask(rest, _mm512_maskz_loadu_epi64(rest, keys + first + i), wanted)));
  return first + below;
}

// keys[at..end) to `by` places behind, from the back.
inline void move_back(uint64_t* keys, size_t at, size_t end, size_t by) {
  for (; end >= at + kLanes; end -= kLanes) {
    const __m512i moved = _mm512_loadu_si512(keys + end - kLanes);
    _mm512_storeu_si512(keys + end - kLanes + by, moved);
  }
  const __mmask8 rest = static_cast<__mmask8>((1u << (end - at)) - 1u);
  const __m512i moved = _mm512_maskz_loadu_epi64(rest, keys + at);
  _mm512_mask_storeu_epi64(keys + at + by, rest, moved);
}

size_t insert(uint64_t* keys, size_t size, uint64_t key) {
  const size_t at = place_of(keys, size, key);
  move_back(keys, at, size, 1);
  keys[at] = key;
  return at;
}

size_t merge(uint64_t* keys, size_t size, uint64_t* fresh, size_t n) {
  sort(fresh, n);
  size_t places[kMostMerged + 1];
  places[n] = size;
  for (size_t i = 0; i < n; ++i) places[i] = place_of(keys, size, fresh[i]);  // none waits for another
  for (size_t i = n; i-- > 0;) {
    move_back(keys, places[i], places[i + 1], i + 1);
    keys[places[i] + i] = fresh[i];
  }
  return places[0];
}

}  // namespace

const InsertKey insert_key_avx512 = {insert, merge, target};

}  // namespace nf::kernels

#endif
