// The loop of the linear kernels in AVX-512 registers: up to six rows by four panels of sums, 24 of the 32 registers, so that ten loads feed 24
// products. Included by files compiled for AVX-512 or more alone; everything has internal linkage.
//
// `Product` has Input, Weight, kStep (depths of a panel's 64 bytes) and add(sums, input, weights): the products of one row's next kStep depths.
#pragma once

#include "kernels/linear_avx512.h"

namespace nf::kernels {
namespace {

constexpr size_t kMostRows = 6, kMostPanels = 4;

template <typename Product, int kRows, int kPanels>
inline void tile(const typename Product::Input* input, size_t stride, const typename Product::Weight* weights, size_t depth, __m512i* out) {
  __m512i sums[kRows][kPanels];
#pragma GCC unroll 6
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kPanels; ++j) sums[i][j] = _mm512_setzero_si512();
  }
  for (size_t k = 0; k < depth; k += Product::kStep) {
    __m512i panel[kPanels];
#pragma GCC unroll 4
    for (int j = 0; j < kPanels; ++j) panel[j] = _mm512_load_si512(weights + (static_cast<size_t>(j) * depth + k) * kPanelColumns);
#pragma GCC unroll 6
    for (int i = 0; i < kRows; ++i) {
      const auto row = Product::row(input + static_cast<size_t>(i) * stride + k);
#pragma GCC unroll 4
      for (int j = 0; j < kPanels; ++j) sums[i][j] = Product::add(sums[i][j], row, panel[j]);
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kPanels; ++j) _mm512_store_si512(out + i * static_cast<int>(kMostPanels) + j, sums[i][j]);
  }
}

template <typename Product, int kPanels>
void tile_of(size_t rows, const typename Product::Input* input, size_t stride, const typename Product::Weight* weights, size_t depth, __m512i* out) {
  switch (rows) {
    case 1: return tile<Product, 1, kPanels>(input, stride, weights, depth, out);
    case 2: return tile<Product, 2, kPanels>(input, stride, weights, depth, out);
    case 3: return tile<Product, 3, kPanels>(input, stride, weights, depth, out);
    case 4: return tile<Product, 4, kPanels>(input, stride, weights, depth, out);
    case 5: return tile<Product, 5, kPanels>(input, stride, weights, depth, out);
    default: return tile<Product, 6, kPanels>(input, stride, weights, depth, out);
  }
}

// All rows and panels; finish(sums of sixteen columns, row, column) for each.
template <typename Product, typename Finish>
inline void all_tiles(const typename Product::Input* input, size_t stride, size_t rows, const typename Product::Weight* weights, size_t depth, size_t panels, const Finish& finish) {
  __m512i sums[kMostRows * kMostPanels];
  for (size_t p = 0; p < panels;) {
    const size_t wide = panels - p >= kMostPanels ? kMostPanels : panels - p >= 2 ? 2 : 1;
    const typename Product::Weight* const panel = weights + p * depth * kPanelColumns;
    for (size_t row = 0; row < rows; row += kMostRows) {
      const size_t count = rows - row < kMostRows ? rows - row : kMostRows;
      const typename Product::Input* const from = input + row * stride;
      if (wide == kMostPanels) {
        tile_of<Product, 4>(count, from, stride, panel, depth, sums);
      } else if (wide == 2) {
        tile_of<Product, 2>(count, from, stride, panel, depth, sums);
      } else {
        tile_of<Product, 1>(count, from, stride, panel, depth, sums);
      }
      for (size_t i = 0; i < count; ++i) {
        for (size_t j = 0; j < wide; ++j) finish(sums[i * kMostPanels + j], row + i, (p + j) * kPanelColumns);
      }
    }
    p += wide;
  }
}

}  // namespace
}  // namespace nf::kernels
