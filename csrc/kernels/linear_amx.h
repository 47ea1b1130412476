// The loop of the linear kernels on tiles, for int8 and bfloat16. Included by files compiled for AMX alone; everything has internal linkage.
//
// Tiles 0 to 3 hold the sums of 32 rows with two panels, 4 and 5 sixteen rows of input each, 6 and 7 sixteen groups of a panel each: per 64
// bytes of depth four loads feed four products. The sums of one block are turned into outputs while the tile unit works on the next block: a
// product occupies it for 16 cycles, in which the vector units would otherwise wait.
#pragma once

#include <immintrin.h>

#include "kernels/amx_tiles.h"
#include "kernels/linear.h"
#include "kernels/linear_avx512.h"

namespace nf::kernels {
namespace {

constexpr size_t kBlockRows = 2 * kTileRows, kBlockColumns = 2 * kPanelColumns;

// The sums of a block, row by row 32 of them, on their way to the output. `Values` turns the sums of a row with two panels into y.
template <typename Values, LinearOut kOut>
struct Finish {
  Values values;
  const int32_t* sums;
  size_t left;  // rows
  uint8_t* out;
  size_t out_bytes;  // from row to row

  __attribute__((always_inline)) inline void row(const Gelu& gelu) {
    __m512 a, b;
    values.next(sums, &a, &b);
    if constexpr (is_gelu(kOut)) {
      a = gelu(a);
      b = gelu(b);
    }
    if constexpr (is_wide(kOut)) {
      _mm512_storeu_ps(out, a);
      _mm512_storeu_ps(out + 64, b);
    } else if constexpr (kOut == LinearOut::f16) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 32), _mm512_cvtps_ph(b, _MM_FROUND_TO_NEAREST_INT));
    } else {
      _mm512_storeu_si512(out, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b, a)));
    }
    sums += kBlockColumns;
    out += out_bytes;
    --left;
  }
  __attribute__((always_inline)) inline void rows(size_t count, const Gelu& gelu) {
    for (count = count < left ? count : left; count != 0; --count) row(gelu);
  }
  // The last panel of an odd number of them.
  void half_rows(const Gelu& gelu) {
    for (; left != 0; --left) {
      __m512 a, b;
      values.next(sums, &a, &b);
      put<kOut>(a, gelu, out, 0);
      sums += kBlockColumns;
      out += out_bytes;
    }
  }
};

// The sums of one block. Rows of the block before are finished between the products, `each` in a step. A tile is loaded again as soon as its last
// product is under way: eight tiles leave no room for two sets of operands. `Product` multiplies tiles; the intrinsics take their numbers as text,
// so it spells out the four products. The compiler does not know that tile instructions read and write memory.
template <typename Product, bool kTwoRows, bool kTwoPanels, typename Before>
inline void block(const uint8_t* input, size_t stride, const uint8_t* panel, size_t panel_bytes, int32_t* sums, Before before, size_t each, const Gelu& gelu) {
  constexpr size_t kRowBytes = kBlockColumns * 4;
  _tile_zero(0);
  if constexpr (kTwoPanels) _tile_zero(1);
  if constexpr (kTwoRows) _tile_zero(2);
  if constexpr (kTwoRows && kTwoPanels) _tile_zero(3);
  const size_t depth_bytes = panel_bytes / kPanelColumns;
  const uint8_t* const second = panel + panel_bytes;
  const uint8_t* const lower = input + kTileRows * stride;
  __asm__ volatile("" ::: "memory");
  _tile_loadd(4, input, stride);
  _tile_loadd(6, panel, kTileBytes);
  if constexpr (kTwoPanels) _tile_loadd(7, second, kTileBytes);
  if constexpr (kTwoRows) _tile_loadd(5, lower, stride);
  for (size_t k = 0; k < depth_bytes;) {
    __asm__ volatile("" ::: "memory");
    Product::template multiply<0>();
    if constexpr (kTwoPanels) Product::template multiply<1>();
    k += kTileBytes;
    const bool more = k < depth_bytes;
    if (more) _tile_loadd(4, input + k, stride);
    if constexpr (kTwoRows) Product::template multiply<2>();
    if (more) _tile_loadd(6, panel + k * kTileRows, kTileBytes);
    if constexpr (kTwoRows && kTwoPanels) Product::template multiply<3>();
    if (more) {
      if constexpr (kTwoPanels) _tile_loadd(7, second + k * kTileRows, kTileBytes);
      if constexpr (kTwoRows) _tile_loadd(5, lower + k, stride);
    }
    __asm__ volatile("" ::: "memory");
    before.rows(each, gelu);
  }
  uint8_t* const out = reinterpret_cast<uint8_t*>(sums);
  _tile_stored(0, out, kRowBytes);
  if constexpr (kTwoPanels) _tile_stored(1, out + kTileBytes, kRowBytes);
  if constexpr (kTwoRows) _tile_stored(2, out + kTileRows * kRowBytes, kRowBytes);
  if constexpr (kTwoRows && kTwoPanels) _tile_stored(3, out + kTileRows * kRowBytes + kTileBytes, kRowBytes);
  __asm__ volatile("" ::: "memory");
}

// All blocks of a job: panels in pairs, and for each pair 32 rows after the other. `values(row, column)` makes the Values of a block.
template <typename Product, LinearOut kOut, typename Make>
inline void all_blocks(const uint8_t* input, size_t stride, size_t rows, const uint8_t* weights, size_t panel_bytes, size_t panels, uint8_t* out, size_t out_stride, const Make& values) {
  constexpr size_t kValueBytes = is_wide(kOut) ? 4 : 2;
  using Each = Finish<decltype(values(size_t{0}, size_t{0})), kOut>;
  alignas(64) int32_t sums[2][kBlockRows * kBlockColumns];
  const Gelu gelu;
  const size_t steps = panel_bytes / (kPanelColumns * kTileBytes), each = (kBlockRows + steps - 1) / steps;
  const size_t whole = rows / kBlockRows * kBlockRows, left = rows - whole, first = left < kTileRows ? left : kTileRows, pairs = panels / 2 * 2;
  Each before{values(0, 0), sums[1], 0, out, out_stride * kValueBytes};
  size_t turn = 0;
  const auto after = [&](size_t row, size_t count, size_t p) {
    before = Each{values(row, p * kPanelColumns), sums[turn], count, out + (row * out_stride + p * kPanelColumns) * kValueBytes, out_stride * kValueBytes};
    turn ^= 1;
  };
  if (whole != 0) configure_pairs(kTileRows, kTileRows);
  for (size_t p = 0; p < pairs; p += 2) {
    for (size_t row = 0; row < whole; row += kBlockRows) {
      block<Product, true, true>(input + row * stride, stride, weights + p * panel_bytes, panel_bytes, sums[turn], before, each, gelu);
      after(row, kBlockRows, p);
    }
  }
  before.rows(kBlockRows, gelu);
  for (size_t row = 0; pairs != panels && row < whole; row += kBlockRows) {
    block<Product, true, false>(input + row * stride, stride, weights + pairs * panel_bytes, panel_bytes, sums[turn], before, each, gelu);
    after(row, kBlockRows, pairs);
    before.half_rows(gelu);
  }
  if (left != 0) configure_pairs(first, left - first);
  for (size_t p = 0; left != 0 && p < panels; p += 2) {
    const uint8_t *const from = input + whole * stride, *const panel = weights + p * panel_bytes;
    if (p == pairs) {
      before.rows(kBlockRows, gelu);
      left > kTileRows ? block<Product, true, false>(from, stride, panel, panel_bytes, sums[turn], before, each, gelu)
                       : block<Product, false, false>(from, stride, panel, panel_bytes, sums[turn], before, each, gelu);
    } else {
      left > kTileRows ? block<Product, true, true>(from, stride, panel, panel_bytes, sums[turn], before, each, gelu)
                       : block<Product, false, true>(from, stride, panel, panel_bytes, sums[turn], before, each, gelu);
    }
    after(whole, left, p);
  }
  pairs != panels && left != 0 ? before.half_rows(gelu) : before.rows(kBlockRows, gelu);
  _tile_release();
}

}  // namespace
}  // namespace nf::kernels
