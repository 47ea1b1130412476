#include "kernels/insert_key/contract.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace nf::kernels {
namespace {

const char* target() { return "avx512"; }

constexpr size_t kLanes = 8;
// Of so many numbers all are compared: loads that do not wait for each other. Of more, half are left out at a time.
constexpr size_t kCounted = 64;
// Pools of up to 2,048 candidates keep a bit for each place; wider ones compare.
constexpr size_t kMostRegisters = 256;

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

// Up to kLanes numbers at once, without sorting them and without a branch on a number: each one's place is how many of the array and how many of
// the others lie before it. Then whole registers move, from the back, and leave those places free.
size_t merge_lanes(uint64_t* keys, size_t size, const uint64_t* fresh, size_t n) {
  const __mmask8 given = static_cast<__mmask8>((1u << n) - 1u);
  const __m512i others = _mm512_maskz_loadu_epi64(given, fresh);
  size_t places[kLanes], least = size + n;
  for (size_t i = 0; i < n; ++i) {
    const __m512i key = _mm512_set1_epi64(static_cast<long long>(fresh[i]));
    // Of equal ones the first comes first.
    const __mmask8 earlier = static_cast<__mmask8>((1u << i) - 1u), later = static_cast<__mmask8>(given & ~earlier);
    const unsigned before = _mm512_mask_cmple_epu64_mask(earlier, others, key) | _mm512_mask_cmplt_epu64_mask(later, others, key);
    places[i] = place_of(keys, size, fresh[i]) + static_cast<size_t>(__builtin_popcount(before));
    least = places[i] < least ? places[i] : least;
  }
  // Registers of the result that numbers go to, one bit for each: so many as there may be are cleared in passing.
  const size_t last = (size + n - 1) / kLanes, first = least / kLanes;
  uint8_t taken[kMostRegisters];
  const bool few = last < kMostRegisters;
  for (size_t j = first; few && j <= last; ++j) taken[j] = 0;
  for (size_t i = 0; few && i < n; ++i) taken[places[i] / kLanes] = static_cast<uint8_t>(taken[places[i] / kLanes] | 1u << (places[i] % kLanes));
  size_t behind = n;  // how far the numbers of the register before move
  for (size_t j = last + 1; j-- > first;) {
    unsigned free = 0;
    if (few) {
      free = taken[j];
    } else {
      for (size_t i = 0; i < n; ++i) free |= places[i] / kLanes == j ? 1u << (places[i] % kLanes) : 0u;
    }
    behind -= static_cast<size_t>(__builtin_popcount(free));
    const unsigned within = j < last ? 255u : (2u << ((size + n - 1) % kLanes)) - 1u;
    const __mmask8 moved = static_cast<__mmask8>(within & ~free);
    const __m512i numbers = _mm512_maskz_expandloadu_epi64(moved, keys + j * kLanes - behind);
    _mm512_mask_storeu_epi64(keys + j * kLanes, moved, numbers);
  }
  for (size_t i = 0; i < n; ++i) keys[places[i]] = fresh[i];
  return least;
}

size_t merge(uint64_t* keys, size_t size, uint64_t* fresh, size_t n) {
  size_t least = size + n;
  for (size_t i = 0; i < n; i += kLanes) {
    const size_t some = n - i < kLanes ? n - i : kLanes;
    const size_t at = merge_lanes(keys, size, fresh + i, some);
    size += some;
    least = at < least ? at : least;
  }
  return least;
}

}  // namespace

const InsertKey insert_key_avx512 = {insert, merge, target};

}  // namespace nf::kernels

#endif
