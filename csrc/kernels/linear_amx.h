// The loop of the linear kernels on tiles, for int8 and bfloat16. Included by files compiled for AMX alone; everything has internal linkage.
//
// Tiles 0 to 3 hold the sums of 32 rows with two panels, 4 and 5 sixteen rows of input each, 6 and 7 sixteen groups of a panel each: per 64
// bytes of depth four loads feed four products. The sums of one block are turned into outputs while the tile unit works on the next block: a
// product occupies it for 16 cycles, in which the vector units would otherwise wait.
#pragma once

#include <immintrin.h>

#include "kernels/linear.h"
#include "kernels/linear_avx512.h"

namespace nf::kernels {
namespace {

constexpr size_t kTileRows = 16, kTileBytes = 64, kBlockRows = 2 * kTileRows, kBlockColumns = 2 * kPanelColumns;

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64, "the layout that ldtilecfg reads");

inline void configure(size_t first, size_t second) {
  TileConfig config;
  const size_t rows[8] = {first, first, second, second, first, second, kTileRows, kTileRows};
  for (int t = 0; t < 8; ++t) {
    if (rows[t] == 0) continue;
    config.row_bytes[t] = kTileBytes;
    config.rows[t] = static_cast<uint8_t>(rows[t]);
  }
  _tile_loadconfig(&config);
}

// A block's sums on their way to the output. Rows of a block stand one behind the other, 32 sums each.
struct Pending {
  const int32_t* sums = nullptr;
  size_t row = 0, rows = 0, column = 0, done = 0;
  bool two = false;  // panels
};

// One tile's worth of depth for up to 32 rows and two panels. `Product` multiplies tiles; the intrinsics take their numbers
// as text, so it spells out the four products.
template <typename Product, bool kTwoRows, bool kTwoPanels>
inline void step(const uint8_t* input, size_t stride, const uint8_t* first, const uint8_t* second) {
  _tile_loadd(6, first, kTileBytes);
  _tile_loadd(4, input, stride);
  Product::template multiply<0>();
  if constexpr (kTwoPanels) {
    _tile_loadd(7, second, kTileBytes);
    Product::template multiply<1>();
  }
  if constexpr (kTwoRows) {
    _tile_loadd(5, input + kTileRows * stride, stride);
    Product::template multiply<2>();
  }
  if constexpr (kTwoRows && kTwoPanels) Product::template multiply<3>();
}

// The sums of one block; `between` is called after each step, and what it does overlaps with the products.
template <typename Product, bool kTwoRows, bool kTwoPanels, typename Between>
inline void block(const uint8_t* input, size_t stride, const uint8_t* panel, size_t panel_bytes, void* sums, const Between& between) {
  constexpr size_t kRowBytes = kBlockColumns * 4;
  _tile_zero(0);
  if constexpr (kTwoPanels) _tile_zero(1);
  if constexpr (kTwoRows) _tile_zero(2);
  if constexpr (kTwoRows && kTwoPanels) _tile_zero(3);
  const size_t depth_bytes = panel_bytes / kPanelColumns;
  for (size_t k = 0; k < depth_bytes; k += kTileBytes) {
    // The compiler does not know that tile instructions read and write memory.
    __asm__ volatile("" ::: "memory");
    step<Product, kTwoRows, kTwoPanels>(input + k, stride, panel + k * kTileRows, panel + panel_bytes + k * kTileRows);
    __asm__ volatile("" ::: "memory");
    between();
  }
  uint8_t* const out = static_cast<uint8_t*>(sums);
  _tile_stored(0, out, kRowBytes);
  if constexpr (kTwoPanels) _tile_stored(1, out + kTileBytes, kRowBytes);
  if constexpr (kTwoRows) _tile_stored(2, out + kTileRows * kRowBytes, kRowBytes);
  if constexpr (kTwoRows && kTwoPanels) _tile_stored(3, out + kTileRows * kRowBytes + kTileBytes, kRowBytes);
  __asm__ volatile("" ::: "memory");
}

// All blocks of a job. `finish(pending, row)` gives one row of a block's sums to the output.
template <typename Product, typename Finish>
class Blocks {
 public:
  Blocks(const uint8_t* input, size_t stride, const uint8_t* weights, size_t panel_bytes, size_t panels, const Finish& finish)
      : input_(input), stride_(stride), weights_(weights), panel_bytes_(panel_bytes), panels_(panels), finish_(finish) {
    const size_t steps = panel_bytes / (kPanelColumns * kTileBytes);
    each_ = (kBlockRows + steps - 1) / steps;
  }

  void run(size_t rows) {
    const size_t whole = rows / kBlockRows * kBlockRows, left = rows - whole, first = left < kTileRows ? left : kTileRows;
    if (whole != 0) configure(kTileRows, kTileRows);
    for (size_t p = 0; whole != 0 && p < panels_; p += 2) {
      for (size_t row = 0; row < whole; row += kBlockRows) one(p, row, kBlockRows);
    }
    if (left != 0) configure(first, left - first);
    for (size_t p = 0; left != 0 && p < panels_; p += 2) one(p, whole, left);
    rest(kBlockRows);
    _tile_release();
  }

 private:
  // Up to `count` more rows of the block before.
  inline void rest(size_t count) {
    for (; count != 0 && pending_.done < pending_.rows; --count, ++pending_.done) finish_(pending_, pending_.done);
  }

  void one(size_t p, size_t row, size_t rows) {
    const bool two = p + 1 < panels_;
    const uint8_t *const from = input_ + row * stride_, *const panel = weights_ + p * panel_bytes_;
    int32_t* const sums = sums_[turn_];
    const auto between = [&] { rest(each_); };
    if (rows > kTileRows && two) {
      block<Product, true, true>(from, stride_, panel, panel_bytes_, sums, between);
    } else if (rows > kTileRows) {
      block<Product, true, false>(from, stride_, panel, panel_bytes_, sums, between);
    } else if (two) {
      block<Product, false, true>(from, stride_, panel, panel_bytes_, sums, between);
    } else {
      block<Product, false, false>(from, stride_, panel, panel_bytes_, sums, between);
    }
    rest(kBlockRows);
    pending_ = Pending{sums, row, rows, p * kPanelColumns, 0, two};
    turn_ ^= 1;
  }

  const uint8_t* const input_;
  const size_t stride_;
  const uint8_t* const weights_;
  const size_t panel_bytes_, panels_;
  const Finish& finish_;
  size_t each_ = 0;  // rows to finish after each step, so that a block is done when the next one is
  Pending pending_;
  int turn_ = 0;
  alignas(64) int32_t sums_[2][kBlockRows * kBlockColumns];
};

}  // namespace
}  // namespace nf::kernels
