// Parts that the encoder's kernels share on targets of 8 or 4 floats a register: powers of two, GELU, and a tile of sums.
//
// `L` is the target's float32 arithmetic (encoder_avx2.h, encoder_neon.h), a type with internal linkage, so each file keeps its own copy:
//   F, kCount                       a register of floats and how many it holds
//   zero set load store             all of them, any alignment
//   add sub mul div fma(a, b, c)    fma is a * b + c, rounded once
//   min max magnitude nearest       nearest: ties to even
//   power(whole)                    2^whole for whole numbers from -126 to 127
//   where_below(x, limit, a, b)     a where x < limit, else b
//   first(v, left)                  zero from lane `left` on
//   widen, narrow                   kCount bfloat16 from and to memory; narrow to nearest, ties to even
//   spread_pair, pairs, low, high   two bfloat16, repeated; kCount such pairs; the first and the second of each, widened
//   codes(v, out)                   to nearest, as bytes; what lies outside is cut off
//   sum, least, most                over the lanes, in a fixed order
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/linear.h"

namespace nf::kernels {

template <typename L>
struct EncoderLoops {
  using F = typename L::F;
  static constexpr size_t kCount = L::kCount;
  static constexpr int kVectors = static_cast<int>(kPanelColumns / L::kCount);  // of a panel
  static constexpr int kRows = 6;  // by a panel: 12 sums of 16 registers (AVX2), 24 of 32 (NEON)

  // As exp2_of in encoder_math.h: off by at most 2^-22 relatively, 0 below -126.
  static inline F exp2(F x) {
    const F bounded = L::max(x, L::set(-126.0f)), whole = L::nearest(bounded), r = L::sub(bounded, whole);
    F p = L::fma(L::set(1.5252734e-5f), r, L::set(1.5403530e-4f));
    p = L::fma(p, r, L::set(1.3333558e-3f));
    p = L::fma(p, r, L::set(9.6181291e-3f));
    p = L::fma(p, r, L::set(5.5504109e-2f));
    p = L::fma(p, r, L::set(2.4022651e-1f));
    p = L::fma(p, r, L::set(6.9314718e-1f));
    p = L::fma(p, r, L::set(1.0f));
    return L::where_below(x, L::set(-126.0f), L::zero(), L::mul(p, L::power(whole)));
  }

  // As gelu_of in encoder_math.h (Abramowitz and Stegun 7.1.26).
  static inline F gelu(F x) {
    const F z = L::mul(L::magnitude(x), L::set(0.70710678f));
    const F t = L::div(L::set(1.0f), L::fma(L::set(0.3275911f), z, L::set(1.0f)));
    F p = L::fma(L::set(1.061405429f), t, L::set(-1.453152027f));
    p = L::fma(p, t, L::set(1.421413741f));
    p = L::fma(p, t, L::set(-0.284496736f));
    p = L::fma(p, t, L::set(0.254829592f));
    const F tail = L::mul(L::mul(L::mul(p, t), L::set(0.5f)), exp2(L::mul(L::mul(z, z), L::set(-1.44269504f))));
    const F part = L::mul(x, tail);
    return L::where_below(x, L::zero(), part, L::sub(x, part));
  }

  // sums[r][v] = sum over k of a[r][k] * panel[k][v], one product after the other: a row's sums do not depend on the rows beside it.
  template <int R>
  static inline void tile(const float* a, size_t stride, const float* panel, size_t depth, F (&sums)[R][kVectors]) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[r][v] = L::zero();
    }
    for (size_t k = 0; k < depth; ++k) {
      F columns[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) columns[v] = L::load(panel + k * kPanelColumns + static_cast<size_t>(v) * kCount);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const F one = L::set(a[static_cast<size_t>(r) * stride + k]);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) sums[r][v] = L::fma(one, columns[v], sums[r][v]);
      }
    }
  }

  // What becomes of kCount results, at `out` in values of its type.
  static inline void put(F y, LinearOut kind, void* out, size_t place) {
    if (kind == LinearOut::gelu_f32 || kind == LinearOut::gelu_bf16) y = gelu(y);
    if (kind == LinearOut::f32 || kind == LinearOut::gelu_f32) {
      L::store(static_cast<float*>(out) + place, y);
    } else {
      L::narrow(y, static_cast<uint16_t*>(out) + place);
    }
  }
};

// Calls unit.run<R>(first row) for groups of `Most` rows and then for what is left.
template <int Left, typename Unit>
static inline void rest_of_rows(size_t row, size_t rows, const Unit& unit) {
  if (rows - row == Left) {
    unit.template run<Left>(row);
  } else if constexpr (Left > 1) {
    rest_of_rows<Left - 1>(row, rows, unit);
  }
}

template <int Most, typename Unit>
static inline void by_rows(size_t rows, const Unit& unit) {
  size_t row = 0;
  for (; row + Most <= rows; row += Most) unit.template run<Most>(row);
  if constexpr (Most > 1) rest_of_rows<Most - 1>(row, rows, unit);
}

}  // namespace nf::kernels
