// How the kernels on AMX set up its tiles. Included by files compiled for AMX alone; everything has internal linkage.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

namespace nf::kernels {
namespace {

constexpr size_t kTileRows = 16, kTileBytes = 64;

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64, "the layout that ldtilecfg reads");

// Rows of 64 bytes in each of the eight tiles; a tile of none is left out.
inline void configure_tiles(const size_t* rows) {
  TileConfig config;
  for (int t = 0; t < 8; ++t) {
    if (rows[t] == 0) continue;
    config.row_bytes[t] = kTileBytes;
    config.rows[t] = static_cast<uint8_t>(rows[t]);
  }
  // gcc 12 takes the instruction to read the first eight bytes alone (amxtileintrin.h) and would leave out the stores behind them.
  __asm__ volatile("" : : "r"(&config) : "memory");
  _tile_loadconfig(&config);
}

// Tiles 0 to 3 for the sums of two tiles of rows, 4 and 5, of `first` and `second` rows, with two whole tiles, 6 and 7.
inline void configure_pairs(size_t first, size_t second) {
  const size_t rows[8] = {first, first, second, second, first, second, kTileRows, kTileRows};
  configure_tiles(rows);
}

inline void configure_whole() {
  const size_t rows[8] = {kTileRows, kTileRows, kTileRows, kTileRows, kTileRows, kTileRows, kTileRows, kTileRows};
  configure_tiles(rows);
}

}  // namespace
}  // namespace nf::kernels
