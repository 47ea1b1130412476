// Intel's tile instructions in plain C, from the operation sections of the intrinsics guide: configuration, load, store, zero, int8 and
// bfloat16 products.
// Shapes that the instruction would refuse (#UD) end the program.
#pragma once

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

namespace tiles {

struct Tile {
  uint16_t row_bytes = 0;
  uint8_t rows = 0;
  uint8_t bytes[16][64] = {};
};
inline Tile file[8];
inline bool configured = false;

inline Tile& at(int index) {
  if (!configured || index < 0 || index > 7 || file[index].rows == 0) abort();
  return file[index];
}

}  // namespace tiles

inline void _tile_loadconfig(const void* memory) {
  const uint8_t* const bytes = static_cast<const uint8_t*>(memory);
  if (bytes[0] != 1) abort();
  for (int t = 0; t < 8; ++t) {
    tiles::file[t] = tiles::Tile();
    memcpy(&tiles::file[t].row_bytes, bytes + 16 + 2 * t, 2);
    tiles::file[t].rows = bytes[48 + t];
    if (tiles::file[t].row_bytes > 64 || tiles::file[t].rows > 16) abort();
  }
  tiles::configured = true;
}

inline void _tile_release() { tiles::configured = false; }
inline void _tile_zero(int index) { memset(tiles::at(index).bytes, 0, sizeof(tiles::Tile::bytes)); }

inline void _tile_loadd(int index, const void* base, size_t stride) {
  tiles::Tile& tile = tiles::at(index);
  memset(tile.bytes, 0, sizeof(tile.bytes));
  for (int r = 0; r < tile.rows; ++r) memcpy(tile.bytes[r], static_cast<const uint8_t*>(base) + static_cast<size_t>(r) * stride, tile.row_bytes);
}

inline void _tile_stored(int index, void* base, size_t stride) {
  const tiles::Tile& tile = tiles::at(index);
  for (int r = 0; r < tile.rows; ++r) memcpy(static_cast<uint8_t*>(base) + static_cast<size_t>(r) * stride, tile.bytes[r], tile.row_bytes);
}

inline void _tile_dpbssd(int sums, int left, int right) {
  tiles::Tile &c = tiles::at(sums), &a = tiles::at(left), &b = tiles::at(right);
  if (c.rows != a.rows || a.row_bytes != 4 * b.rows || c.row_bytes != b.row_bytes) abort();
  for (int m = 0; m < c.rows; ++m) {
    for (int n = 0; n < c.row_bytes / 4; ++n) {
      int32_t sum;
      memcpy(&sum, c.bytes[m] + 4 * n, 4);
      for (int k = 0; k < a.row_bytes; ++k) sum += static_cast<int8_t>(a.bytes[m][k]) * static_cast<int8_t>(b.bytes[k / 4][4 * n + k % 4]);
      memcpy(c.bytes[m] + 4 * n, &sum, 4);
    }
  }
}

namespace tiles {

inline float flushed(float value) { return value < 0x1p-126f && value > -0x1p-126f ? 0.0f : value; }

inline float bf16_at(const uint8_t* bytes) {
  uint16_t half;
  memcpy(&half, bytes, 2);
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float value;
  memcpy(&value, &bits, 4);
  return flushed(value);
}

}  // namespace tiles

// Even and odd places are summed apart and joined at the end; denormals are zero on the way in and on the way out.
inline void _tile_dpbf16ps(int sums, int left, int right) {
  tiles::Tile &c = tiles::at(sums), &a = tiles::at(left), &b = tiles::at(right);
  if (c.rows != a.rows || a.row_bytes != 4 * b.rows || c.row_bytes != b.row_bytes) abort();
  for (int m = 0; m < c.rows; ++m) {
    for (int n = 0; n < c.row_bytes / 4; ++n) {
      float parts[2] = {0.0f, 0.0f}, sum;
      for (int k = 0; k < a.row_bytes / 2; ++k) {
        const float product = tiles::flushed(tiles::bf16_at(a.bytes[m] + 2 * k) * tiles::bf16_at(b.bytes[k / 2] + 4 * n + 2 * (k % 2)));
        parts[k % 2] = tiles::flushed(parts[k % 2] + product);
      }
      memcpy(&sum, c.bytes[m] + 4 * n, 4);
      sum = tiles::flushed(tiles::flushed(sum) + tiles::flushed(parts[0] + parts[1]));
      memcpy(c.bytes[m] + 4 * n, &sum, 4);
    }
  }
}
