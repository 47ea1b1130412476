// The process has asked for the tile registers (simd/cpu.cpp); the tile configuration lives only inside each call.
#include "kernels/dot_bf16/contract.h"

#if defined(__x86_64__)
#include "kernels/amx_tiles.h"

namespace nf::kernels {
namespace {

const char* target() { return "amx"; }

// Rows are the left operand as they lie in memory, sixteen of them and 32 dimensions a tile; queries the right one, which wants pairs of
// dimensions side by side. Tiles 0 and 1 hold the sums of sixteen rows with the high and the low parts, 2 and 3 those of the next sixteen;
// 4 and 5 are rows, 6 and 7 parts: four chains of products, as many as the latency of one (52 cycles) has places for (16 cycles each).
constexpr size_t kTileDims = 32;
static_assert(kHalvesPairs == kTileRows, "queries fill a tile");
constexpr size_t kTileValues = kTileRows * kTileBytes / sizeof(float);

struct Sums {
  alignas(64) float of[4][kTileValues];
};

// Up to 32 rows. `tail` holds their last dimensions where dim is no multiple of 32, zeros behind them.
struct RowTiles {
  const unsigned char* rows[2];
  size_t stride;
  alignas(64) unsigned char tail[2][kTileRows * kTileBytes];
};

template <bool kTwo>
inline void products(const RowTiles& given, const uint16_t* high, const uint16_t* low, size_t dim, Sums& sums) {
  _tile_zero(0);
  _tile_zero(1);
  if constexpr (kTwo) _tile_zero(2);
  if constexpr (kTwo) _tile_zero(3);
  for (size_t d = 0; d < dim; d += kTileDims) {
    const bool whole = d + kTileDims <= dim;
    _tile_loadd(4, whole ? given.rows[0] + d * sizeof(uint16_t) : given.tail[0], whole ? given.stride : kTileBytes);
    _tile_loadd(6, high + d * kHalvesQueries, kTileBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, low + d * kHalvesQueries, kTileBytes);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (kTwo) {
      _tile_loadd(5, whole ? given.rows[1] + d * sizeof(uint16_t) : given.tail[1], whole ? given.stride : kTileBytes);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, sums.of[0], kTileBytes);
  _tile_stored(1, sums.of[1], kTileBytes);
  if constexpr (kTwo) _tile_stored(2, sums.of[2], kTileBytes);
  if constexpr (kTwo) _tile_stored(3, sums.of[3], kTileBytes);
}

void copy_tail(const unsigned char* rows, size_t count, size_t dim, unsigned char* tail) {
  const size_t whole = dim / kTileDims * kTileDims, rest = (dim - whole) * sizeof(uint16_t);
  __builtin_memset(tail, 0, kTileRows * kTileBytes);
  for (size_t j = 0; rest != 0 && j < count; ++j) __builtin_memcpy(tail + j * kTileBytes, rows + (j * dim + whole) * sizeof(uint16_t), rest);
}

// Sums stand row by row, the answer query by query.
void store(const float* high, const float* low, size_t nr, size_t nq, float* out, size_t out_stride) {
  for (size_t i = 0; i < nq; ++i) {
    for (size_t j = 0; j < nr; ++j) out[i * out_stride + j] = high[j * kHalvesQueries + i] + low[j * kHalvesQueries + i];
  }
}

void block(const uint16_t* high, const uint16_t* low, size_t nq, const void* rows, size_t nr, size_t dim, float* out, size_t out_stride) {
  const size_t group = (dim + kTileDims - 1) / kTileDims * kTileDims * kHalvesQueries;
  RowTiles given;
  given.stride = dim * sizeof(uint16_t);
  Sums sums;
  for (size_t j = 0; j < nr; j += 2 * kTileRows) {
    const size_t left = nr - j, first = left < kTileRows ? left : kTileRows;
    const size_t second = left - first < kTileRows ? left - first : kTileRows;
    given.rows[0] = static_cast<const unsigned char*>(rows) + j * given.stride;
    given.rows[1] = given.rows[0] + first * given.stride;
    copy_tail(given.rows[0], first, dim, given.tail[0]);
    copy_tail(given.rows[1], second, dim, given.tail[1]);
    configure_pairs(first, second);
    for (size_t i = 0; i < nq; i += kHalvesQueries) {
      const size_t place = i / kHalvesQueries * group, count = nq - i < kHalvesQueries ? nq - i : kHalvesQueries;
      // The compiler does not know that a tile load reads memory, nor that a tile store writes it.
      __asm__ volatile("" ::: "memory");
      if (second != 0) {
        products<true>(given, high + place, low + place, dim, sums);
      } else {
        products<false>(given, high + place, low + place, dim, sums);
      }
      __asm__ volatile("" ::: "memory");
      store(sums.of[0], sums.of[1], first, count, out + i * out_stride + j, out_stride);
      if (second != 0) store(sums.of[2], sums.of[3], second, count, out + i * out_stride + j + first, out_stride);
    }
  }
  _tile_release();
}

}  // namespace

const DotBf16 dot_bf16_amx = {block, target};

}  // namespace nf::kernels

#endif
