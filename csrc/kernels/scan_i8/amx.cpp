// The process has asked for the tile registers (simd/cpu.cpp); the tile configuration lives only inside each call.
#include "kernels/scan_i8/contract.h"

#if defined(__x86_64__)
#include "kernels/scan_i8/reach_avx512.h"

namespace nf::kernels {
namespace {

const char* target() { return "amx"; }

// Tiles 0 to 3 hold sums, 4 and 5 sixteen queries each, 6 and 7 a block of rows each: per 64 dimensions four loads feed four products, so a
// load is in flight for each product (4.5 of 7.6 TOPS were measured with two operands from the second-level cache for each product).
constexpr int kTileRows = 16, kTileBytes = 64;
constexpr size_t kTileQueries = kTileRows, kGroups = kTileRows;  // of a tile of queries, of a tile of rows

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64, "the layout that ldtilecfg reads");

// The first tile of queries holds `first` of them, the second `second`; the memory behind the last query is not read.
void configure(size_t first, size_t second) {
  TileConfig config;
  const size_t rows[8] = {first, first, second, second, first, second, kGroups, kGroups};
  for (int t = 0; t < 8; ++t) {
    if (rows[t] == 0) continue;
    config.row_bytes[t] = kTileBytes;
    config.rows[t] = static_cast<uint8_t>(rows[t]);
  }
  _tile_loadconfig(&config);
}

struct Sums {
  alignas(64) int32_t of[4][kTileQueries * kScanBlockRows];
};

// The products of one or two tiles of queries with one or two blocks of rows. Behind a block's last group stands the next block, or `last`
// behind the rows' own end: the queries' codes are zero there.
template <bool kTwoQueries, bool kTwoBlocks>
inline void products(const int8_t* queries, size_t stride, const int8_t* const* blocks, const int8_t* const* last, size_t groups, Sums& sums) {
  _tile_zero(0);
  if constexpr (kTwoBlocks) _tile_zero(1);
  if constexpr (kTwoQueries) _tile_zero(2);
  if constexpr (kTwoQueries && kTwoBlocks) _tile_zero(3);
  for (size_t g = 0; g < groups; g += kGroups) {
    const bool whole = g + kGroups <= groups;
    _tile_loadd(4, queries + 4 * g, stride);
    _tile_loadd(6, whole ? blocks[0] + g * kTileBytes : last[0], kTileBytes);
    _tile_dpbssd(0, 4, 6);
    if constexpr (kTwoBlocks) {
      _tile_loadd(7, whole ? blocks[1] + g * kTileBytes : last[1], kTileBytes);
      _tile_dpbssd(1, 4, 7);
    }
    if constexpr (kTwoQueries) {
      _tile_loadd(5, queries + kTileQueries * stride + 4 * g, stride);
      _tile_dpbssd(2, 5, 6);
    }
    if constexpr (kTwoQueries && kTwoBlocks) _tile_dpbssd(3, 5, 7);
  }
  _tile_stored(0, sums.of[0], kTileBytes);
  if constexpr (kTwoBlocks) _tile_stored(1, sums.of[1], kTileBytes);
  if constexpr (kTwoQueries) _tile_stored(2, sums.of[2], kTileBytes);
  if constexpr (kTwoQueries && kTwoBlocks) _tile_stored(3, sums.of[3], kTileBytes);
}

// The products of one query's low codes with a block of rows: too few for tiles. As in avx512vnni.cpp, rows are moved up by 128.
inline __m512i low_products(const int8_t* low, int32_t low_sum, const int8_t* block, size_t groups) {
  __m512i sum = _mm512_set1_epi32(-128 * low_sum);
  for (size_t g = 0; g < groups; ++g) {
    int four;
    __builtin_memcpy(&four, low + 4 * g, sizeof(four));
    sum = _mm512_dpbusd_epi32(sum, _mm512_xor_si512(_mm512_loadu_si512(block + g * kTileBytes), _mm512_set1_epi8(-128)), _mm512_set1_epi32(four));
  }
  return sum;
}

// The pairs of one tile of sums that reach their query's cut.
ScanI8Hit* reach(const int32_t* sums, const ScanI8Queries& queries, size_t query, size_t count, const ScanI8Rows& rows, size_t row, ScanI8Hit* hits) {
  for (size_t a = 0; a < count; ++a) {
    const ScanI8Query& each = queries.each[query + a];
    const int32_t* const products = sums + a * kScanBlockRows;
    const __m512i sixteen = _mm512_load_si512(products);
    uint32_t mask = reached_16(sixteen, each, rows.scale + row, rows.error + row, each.add + row);
    if (mask == 0) continue;
    const int8_t* const block = rows.codes + row / kScanBlockRows * rows.groups * kTileBytes;
    const __m512i beside = low_products(queries.low + (query + a) * queries.stride, each.low_sum, block, rows.groups);
    mask &= reached_16(sixteen, beside, each, rows.scale + row, rows.error + row, each.add + row);
    alignas(64) int32_t low[kScanBlockRows];
    _mm512_store_si512(low, beside);
    for (; mask != 0; mask &= mask - 1) {
      const uint32_t lane = static_cast<uint32_t>(__builtin_ctz(mask));
      *hits++ = ScanI8Hit{static_cast<uint32_t>(query + a), static_cast<uint32_t>(row) + lane, products[lane], low[lane]};
    }
  }
  return hits;
}

// Up to two tiles of queries against all rows.
template <bool kTwoQueries>
ScanI8Hit* column(const ScanI8Queries& queries, size_t query, size_t first, size_t second, const ScanI8Rows& rows, ScanI8Hit* hits) {
  const int8_t* const codes = queries.narrow + query * queries.stride;
  const size_t block_bytes = rows.groups * kTileBytes, rest = rows.groups % kGroups, tail = rows.groups - rest;
  alignas(64) int8_t padded[2][kTileRows * kTileBytes];
  Sums sums;
  for (size_t b = 0; b < rows.blocks; b += 2) {
    const bool two = b + 1 < rows.blocks;
    const int8_t* const blocks[2] = {rows.codes + b * block_bytes, rows.codes + (b + (two ? 1 : 0)) * block_bytes};
    const int8_t* last[2] = {blocks[0] + tail * kTileBytes, blocks[1] + tail * kTileBytes};
    // A whole tile read from the last groups of block b ends inside the rows where enough blocks follow.
    for (size_t i = 0; rest != 0 && i < (two ? 2u : 1u); ++i) {
      if ((rows.blocks - 1 - b - i) * rows.groups >= kGroups - rest) continue;
      __builtin_memset(padded[i], 0, sizeof(padded[i]));
      __builtin_memcpy(padded[i], last[i], rest * kTileBytes);
      last[i] = padded[i];
    }
    // The compiler does not know that a tile load reads memory.
    __asm__ volatile("" ::: "memory");
    if (two) {
      products<kTwoQueries, true>(codes, queries.stride, blocks, last, rows.groups, sums);
    } else {
      products<kTwoQueries, false>(codes, queries.stride, blocks, last, rows.groups, sums);
    }
    __asm__ volatile("" ::: "memory");
    hits = reach(sums.of[0], queries, query, first, rows, b * kScanBlockRows, hits);
    if (two) hits = reach(sums.of[1], queries, query, first, rows, (b + 1) * kScanBlockRows, hits);
    if constexpr (kTwoQueries) {
      hits = reach(sums.of[2], queries, query + first, second, rows, b * kScanBlockRows, hits);
      if (two) hits = reach(sums.of[3], queries, query + first, second, rows, (b + 1) * kScanBlockRows, hits);
    }
  }
  return hits;
}

size_t scan(const ScanI8Queries* queries, const ScanI8Rows* rows, ScanI8Hit* hits) {
  ScanI8Hit* end = hits;
  for (size_t i = 0; i < queries->count;) {
    const size_t left = queries->count - i;
    const size_t first = left < kTileQueries ? left : kTileQueries;
    const size_t second = left - first < kTileQueries ? left - first : kTileQueries;
    configure(first, second);
    end = second != 0 ? column<true>(*queries, i, first, second, *rows, end) : column<false>(*queries, i, first, 0, *rows, end);
    i += first + second;
  }
  _tile_release();
  return static_cast<size_t>(end - hits);
}

}  // namespace

const ScanI8 scan_i8_amx = {scan, target, kNarrowCodes};

}  // namespace nf::kernels

#endif
