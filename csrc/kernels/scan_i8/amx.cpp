// The process has asked for the tile registers (simd/cpu.cpp); the tile configuration lives only inside each call.
#include "kernels/scan_i8/contract.h"

#if defined(__x86_64__)
#include "kernels/amx_tiles.h"
#include "kernels/scan_i8/reach_avx512.h"

namespace nf::kernels {
namespace {

const char* target() { return "amx"; }

// A step is up to two tiles of queries by two blocks of rows. Tiles 0 to 3 hold its sums, 4 and 5 sixteen queries each, 6 and 7 a block each:
// per 64 dimensions four loads feed four products of 16 cycles. While a step's products run, the vector units test the sums of the step
// before, so the tests cost nothing as long as they are through first (some 200 cycles of 384 at 384 dimensions).
constexpr size_t kTileQueries = kTileRows, kGroups = kTileRows;  // of a tile of queries, of a tile of rows
constexpr size_t kStepQueries = 2 * kTileQueries, kStepRows = 2 * kScanBlockRows;
// Queries that stay in the first-level cache (48 KiB) beside two blocks of rows and the sums: 24 KiB at 384 dimensions.
constexpr size_t kNearQueries = 2 * kStepQueries;
// Low products of one query and block take some 110 cycles of vector instructions, of a whole step some 450 of tiles.
constexpr size_t kAlone = 8;

struct Sums {
  alignas(64) int32_t of[kStepQueries][kStepRows] = {};
};

// Behind a block's last group stands the next block, or `last` behind the rows' own end: the queries' codes are zero there.
struct Blocks {
  const int8_t* codes[2];
  const int8_t* last[2];
};

struct Nothing {
  inline void operator()(size_t) const {}
};

// The products of a step. `between` is called after each 64 dimensions, with their number.
template <bool kTwoQueries, bool kTwoBlocks, typename Between>
inline void multiply(const int8_t* queries, size_t stride, const Blocks& blocks, size_t groups, Sums& sums, const Between& between) {
  constexpr size_t kSumBytes = sizeof(sums.of[0]);
  _tile_zero(0);
  if constexpr (kTwoBlocks) _tile_zero(1);
  if constexpr (kTwoQueries) _tile_zero(2);
  if constexpr (kTwoQueries && kTwoBlocks) _tile_zero(3);
  for (size_t g = 0; g < groups; g += kGroups) {
    const bool whole = g + kGroups <= groups;
    _tile_loadd(4, queries + 4 * g, stride);
    _tile_loadd(6, whole ? blocks.codes[0] + g * kTileBytes : blocks.last[0], kTileBytes);
    _tile_dpbssd(0, 4, 6);
    if constexpr (kTwoBlocks) {
      _tile_loadd(7, whole ? blocks.codes[1] + g * kTileBytes : blocks.last[1], kTileBytes);
      _tile_dpbssd(1, 4, 7);
    }
    if constexpr (kTwoQueries) {
      _tile_loadd(5, queries + kTileQueries * stride + 4 * g, stride);
      _tile_dpbssd(2, 5, 6);
    }
    if constexpr (kTwoQueries && kTwoBlocks) _tile_dpbssd(3, 5, 7);
    between(g / kGroups);
  }
  _tile_stored(0, &sums.of[0][0], kSumBytes);
  if constexpr (kTwoBlocks) _tile_stored(1, &sums.of[0][kScanBlockRows], kSumBytes);
  if constexpr (kTwoQueries) _tile_stored(2, &sums.of[kTileQueries][0], kSumBytes);
  if constexpr (kTwoQueries && kTwoBlocks) _tile_stored(3, &sums.of[kTileQueries][kScanBlockRows], kSumBytes);
}

// The products of one query's low codes with a block of rows, by vectors: four sums, for one would wait five cycles for each addition. As in
// avx512vnni.cpp, rows are moved up by 128.
inline __m512i low_products(const int8_t* low, int32_t low_sum, const int8_t* block, size_t groups) {
  const auto plus = [&](__m512i sum, size_t g) {
    int four;
    __builtin_memcpy(&four, low + 4 * g, sizeof(four));
    return _mm512_dpbusd_epi32(sum, _mm512_xor_si512(_mm512_loadu_si512(block + g * kTileBytes), _mm512_set1_epi8(-128)), _mm512_set1_epi32(four));
  };
  __m512i sums[4] = {_mm512_set1_epi32(-128 * low_sum), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
  size_t g = 0;
  for (; g + 4 <= groups; g += 4) {
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i) sums[i] = plus(sums[i], g + i);
  }
  for (; g < groups; ++g) sums[0] = plus(sums[0], g);
  return _mm512_add_epi32(_mm512_add_epi32(sums[0], sums[1]), _mm512_add_epi32(sums[2], sums[3]));
}

// One call: all queries that it was given against all rows, step by step.
class Scan {
 public:
  Scan(const ScanI8Queries& queries, const ScanI8Rows& rows, ScanI8Hit* hits)
      : queries_(queries), rows_(rows), hits_(hits), rounds_((rows.groups + kGroups - 1) / kGroups), chunk_((kStepQueries + rounds_ - 1) / rounds_) {
    const size_t steps = (queries.count + kStepQueries - 1) / kStepQueries * ((rows.blocks + 1) / 2);
    ahead_ = rows.ahead;
    ahead_lines_ = (rows.ahead_bytes / kTileBytes + steps * rounds_ - 1) / (steps * rounds_);
  }

  // Queries from `first` on whose tiles are full but for the last two of them; at most kNearQueries.
  void columns(size_t first, size_t count) {
    const size_t block_bytes = rows_.groups * kTileBytes, rest = rows_.groups % kGroups, tail = rows_.groups - rest;
    for (size_t b = 0; b < rows_.blocks; b += 2) {
      const bool two = b + 1 < rows_.blocks;
      Blocks blocks = {{rows_.codes + b * block_bytes, rows_.codes + (b + (two ? 1 : 0)) * block_bytes}, {}};
      for (size_t i = 0; i < 2; ++i) {
        blocks.last[i] = blocks.codes[i] + tail * kTileBytes;
        // A whole tile read from the last groups of block b ends inside the rows where enough blocks follow.
        const size_t behind = rows_.blocks - 1 - b - (two ? i : 0);
        if (rest == 0 || behind * rows_.groups >= kGroups - rest) continue;
        flush();  // the step before may still read what stands here
        __builtin_memset(padded_[i], 0, sizeof(padded_[i]));
        __builtin_memcpy(padded_[i], blocks.last[i], rest * kTileBytes);
        blocks.last[i] = padded_[i];
      }
      for (size_t i = 0; i < count; i += kStepQueries) {
        const size_t here = count - i < kStepQueries ? count - i : kStepQueries;
        step(Step{first + i, here, b * kScanBlockRows, two, blocks});
      }
    }
  }

  // Tests what the last step left. Before the tiles' configuration changes, and at the end.
  void flush() {
    if (!waiting_) return;
    waiting_ = false;
    test(kStepQueries);
    emit();
  }

  ScanI8Hit* end() const { return hits_; }

 private:
  struct Step {
    size_t query, count, row;
    bool two;  // blocks of rows
    Blocks blocks;
  };

  template <typename Between>
  inline void products(const Step& step, const int8_t* codes, Sums& sums, const Between& between) {
    const int8_t* const place = codes + step.query * queries_.stride;
    // The compiler does not know that a tile load reads memory.
    __asm__ volatile("" ::: "memory");
    if (step.count > kTileQueries) {
      step.two ? multiply<true, true>(place, queries_.stride, step.blocks, rows_.groups, sums, between)
               : multiply<true, false>(place, queries_.stride, step.blocks, rows_.groups, sums, between);
    } else {
      step.two ? multiply<false, true>(place, queries_.stride, step.blocks, rows_.groups, sums, between)
               : multiply<false, false>(place, queries_.stride, step.blocks, rows_.groups, sums, between);
    }
    __asm__ volatile("" ::: "memory");
  }

  void step(const Step& next) {
    Sums& sums = sums_[turn_];
    if (waiting_) {
      products(next, queries_.narrow, sums, [this](size_t round) {
        test((round + 1) * chunk_);
        ask_ahead();
      });
      test(kStepQueries);
      emit();
    } else {
      products(next, queries_.narrow, sums, Nothing());
    }
    last_ = next;
    last_sums_ = &sums;
    turn_ = 1 - turn_;
    tested_ = any_ = 0;
    if (next.count != kStepQueries) __builtin_memset(masks_, 0, sizeof(masks_));
    waiting_ = true;
  }

  // Tests the last step's sums up to those of its query number `until`.
  inline void test(size_t until) {
    if (until > last_.count) until = last_.count;
    const size_t second = last_.two ? kScanBlockRows : 0, row = last_.row;
    const __m512 scale[2] = {_mm512_loadu_ps(rows_.scale + row), _mm512_loadu_ps(rows_.scale + row + second)};
    const __m512 error[2] = {_mm512_loadu_ps(rows_.error + row), _mm512_loadu_ps(rows_.error + row + second)};
    for (; tested_ < until; ++tested_) {
      const ScanI8Query& each = queries_.each[last_.query + tested_];
      const __m512 factor = _mm512_set1_ps(each.factor), slack = _mm512_set1_ps(each.slack), cut = _mm512_set1_ps(each.cut);
      uint32_t reached[2];
#pragma GCC unroll 2
      for (size_t i = 0; i < 2; ++i) {
        const __m512 value = _mm512_cvtepi32_ps(_mm512_load_si512(&last_sums_->of[tested_][i * kScanBlockRows]));
        const __m512 beside = _mm512_fmadd_ps(slack, error[i], _mm512_loadu_ps(each.add + row + i * second));
        reached[i] = static_cast<uint32_t>(_mm512_cmp_ps_mask(_mm512_fmadd_ps(factor, _mm512_mul_ps(value, scale[i]), beside), cut, _CMP_GE_OQ));
      }
      masks_[tested_] = last_.two ? reached[0] | reached[1] << kScanBlockRows : reached[0];
      any_ |= masks_[tested_];
    }
  }

  // The pairs of the last step that reach the cut by their low codes too.
  void emit() {
    if (any_ == 0) return;
    const uint32_t parts[2] = {with_any(0xFFFF), with_any(0xFFFF0000u)};
    const bool multiplied = static_cast<size_t>(__builtin_popcount(parts[0]) + __builtin_popcount(parts[1])) > kAlone;
    if (multiplied) products(last_, queries_.low, low_, Nothing());
    for (size_t i = 0; i < 2; ++i) {
      for (uint32_t left = parts[i]; left != 0; left &= left - 1) {
        const size_t a = static_cast<size_t>(__builtin_ctz(left));
        emit(a, i, masks_[a] >> (i * kScanBlockRows) & 0xFFFF, multiplied);
      }
    }
  }

  // The queries of the last step whose masks have any of these bits.
  uint32_t with_any(uint32_t bits) const {
    const __m512i wanted = _mm512_set1_epi32(static_cast<int32_t>(bits));
    const __mmask16 first = _mm512_test_epi32_mask(_mm512_load_si512(masks_), wanted), second = _mm512_test_epi32_mask(_mm512_load_si512(masks_ + kTileQueries), wanted);
    return static_cast<uint32_t>(second) << kTileQueries | first;
  }

  void emit(size_t a, size_t i, uint32_t mask, bool multiplied) {
    const size_t query = last_.query + a, row = last_.row + i * kScanBlockRows;
    const ScanI8Query& each = queries_.each[query];
    const int32_t* const products = &last_sums_->of[a][i * kScanBlockRows];
    const __m512i beside = multiplied ? _mm512_load_si512(&low_.of[a][i * kScanBlockRows])
                                      : low_products(queries_.low + query * queries_.stride, each.low_sum, last_.blocks.codes[i], rows_.groups);
    mask &= reached_16(_mm512_load_si512(products), beside, each, rows_.scale + row, rows_.error + row, each.add + row);
    alignas(64) int32_t low[kScanBlockRows];
    _mm512_store_si512(low, beside);
    for (; mask != 0; mask &= mask - 1) {
      const uint32_t lane = static_cast<uint32_t>(__builtin_ctz(mask));
      *hits_++ = ScanI8Hit{static_cast<uint32_t>(query), static_cast<uint32_t>(row) + lane, products[lane], low[lane]};
    }
  }

  inline void ask_ahead() {
    for (size_t i = 0; i < ahead_lines_; ++i, ahead_ += kTileBytes) __builtin_prefetch(ahead_, 0, 2);
  }

  const ScanI8Queries& queries_;
  const ScanI8Rows& rows_;
  ScanI8Hit* hits_;
  const size_t rounds_, chunk_;  // of 64 dimensions in a step; queries to test beside each
  const int8_t* ahead_;
  size_t ahead_lines_;
  Step last_ = {};
  bool waiting_ = false;
  size_t turn_ = 0, tested_ = 0;
  uint32_t any_ = 0;
  const Sums* last_sums_ = nullptr;
  alignas(64) uint32_t masks_[kStepQueries] = {};
  Sums sums_[2], low_;
  alignas(64) int8_t padded_[2][kTileRows * kTileBytes];
};

size_t scan(const ScanI8Queries* queries, const ScanI8Rows* rows, ScanI8Hit* hits) {
  if (queries->count == 0 || rows->blocks == 0) return 0;
  Scan all(*queries, *rows, hits);
  const size_t full = queries->count / kStepQueries * kStepQueries, rest = queries->count - full;
  if (full != 0) configure_pairs(kTileQueries, kTileQueries);
  for (size_t i = 0; i < full; i += kNearQueries) all.columns(i, full - i < kNearQueries ? full - i : kNearQueries);
  all.flush();
  if (rest != 0) {
    // The memory behind the last query is not read.
    configure_pairs(rest < kTileQueries ? rest : kTileQueries, rest < kTileQueries ? 0 : rest - kTileQueries);
    all.columns(full, rest);
    all.flush();
  }
  _tile_release();
  return static_cast<size_t>(all.end() - hits);
}

}  // namespace

const ScanI8 scan_i8_amx = {scan, target, kNarrowCodes};

}  // namespace nf::kernels

#endif
