// The scan's loops, shared by the vector targets: a unit of rows (kRegisters of sums) against `kQueries` queries at a time.
//
// `Lanes` is the target's arithmetic, a type of the including file's unnamed namespace, so each file keeps its own copy of this code:
//   Ints, kRows, kRegisters    a register of sums holds kRows rows; a unit is kRegisters of them
//   codes(queries), widen(p)   the query codes this target takes; four codes of each of kRows rows as the multiplication wants them
//   start(code_sum), spread(q) a register of sums to begin with; four query codes, repeated
//   plus(sum, rows, query)     sum + rows * query
//   Products, kParts, fold     the unit's products as kParts registers of int32, in the order of the rows
//   reached, store             the test of a register of products; its values
//   kLow                       query codes are narrow; then also:
//   added                      the sum of two registers of sums
//   reached_low                the test of a register of products with the low products beside it
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/scan_i8/contract.h"

namespace nf::kernels {

template <typename Lanes>
struct ScanLoops {
  static constexpr size_t kUnit = Lanes::kRegisters * Lanes::kRows;
  static constexpr size_t kPart = kUnit / Lanes::kParts;
  static constexpr size_t kGroupBytes = kScanGroupDims * kScanBlockRows;
  static_assert(kScanBlockRows % kPart == 0, "the rows of one register of products lie in one block");

  static inline const int8_t* place(const ScanI8Rows& rows, size_t row) {
    return rows.codes + row / kScanBlockRows * rows.groups * kGroupBytes + row % kScanBlockRows * 4;
  }

  // The products of one query's low codes with the kPart rows from `row` on. Four sums: one would wait five cycles for each addition.
  static inline typename Lanes::Ints low_products(const ScanI8Queries& queries, size_t query, const ScanI8Rows& rows, size_t row) {
    const int8_t* const codes = place(rows, row);
    const int8_t* const low = queries.low + query * queries.stride;
    typename Lanes::Ints sums[4] = {Lanes::start(queries.each[query].low_sum), Lanes::start(0), Lanes::start(0), Lanes::start(0)};
    size_t g = 0;
    for (; g + 4 <= rows.groups; g += 4) {
#pragma GCC unroll 4
      for (size_t i = 0; i < 4; ++i) sums[i] = Lanes::plus(sums[i], Lanes::widen(codes + (g + i) * kGroupBytes), Lanes::spread(low + 4 * (g + i)));
    }
    for (; g < rows.groups; ++g) sums[0] = Lanes::plus(sums[0], Lanes::widen(codes + g * kGroupBytes), Lanes::spread(low + 4 * g));
    return Lanes::added(Lanes::added(sums[0], sums[1]), Lanes::added(sums[2], sums[3]));
  }

  // Q queries, one unit of rows that begins with row `first`.
  template <int Q>
  static inline ScanI8Hit* unit(const ScanI8Queries& queries, size_t query, const ScanI8Rows& rows, size_t first, ScanI8Hit* hits) {
    constexpr int R = Lanes::kRegisters;
    typename Lanes::Ints sums[Q][R];
#pragma GCC unroll 32
    for (int a = 0; a < Q; ++a) {
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sums[a][r] = Lanes::start(queries.each[query + static_cast<size_t>(a)].code_sum);
    }
    const size_t end = rows.blocks * kScanBlockRows;
    const int8_t* codes[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      // The last unit may reach beyond the last block: there its first rows are read again, and left out below.
      const size_t row = first + static_cast<size_t>(r) * Lanes::kRows;
      codes[r] = place(rows, row < end ? row : first);
    }
    const auto* const begin = Lanes::codes(queries) + query * queries.stride;
    for (size_t g = 0; g < rows.groups; ++g) {
      typename Lanes::Ints wide[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) wide[r] = Lanes::widen(codes[r] + g * kGroupBytes);
#pragma GCC unroll 32
      for (int a = 0; a < Q; ++a) {
        const typename Lanes::Ints four = Lanes::spread(begin + static_cast<size_t>(a) * queries.stride + 4 * g);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
          sums[a][r] = Lanes::plus(sums[a][r], wide[r], four);
          // Keeps the sums in order: gcc 12 otherwise makes several products before it adds any, runs out of registers and moves half of the
          // sums through memory, which halves the speed. Not where the tests emulate these registers.
#if defined(__AVX2__)
          __asm__ volatile("" : "+v"(sums[a][r]));
#elif defined(__ARM_FEATURE_DOTPROD)
          __asm__ volatile("" : "+w"(sums[a][r]));
#endif
        }
      }
    }
    // Unrolled, for sums that are indexed by a variable live in memory during the loop above too.
    typename Lanes::Products products[Q][Lanes::kParts];
#pragma GCC unroll 32
    for (int a = 0; a < Q; ++a) Lanes::fold(sums[a], products[a]);
    for (size_t p = 0; p < Lanes::kParts && first + p * kPart < end; ++p) {
      const size_t row = first + p * kPart;
      for (int a = 0; a < Q; ++a) {
        const size_t index = query + static_cast<size_t>(a);
        uint32_t mask = Lanes::reached(products[a][p], queries.each[index], rows.scale + row, rows.error + row, queries.each[index].add + row);
        if (mask == 0) continue;
        alignas(64) int32_t values[kPart], low[kPart] = {};
        Lanes::store(products[a][p], values);
        if constexpr (Lanes::kLow) {
          const typename Lanes::Products beside = low_products(queries, index, rows, row);
          mask &= Lanes::reached_low(products[a][p], beside, queries.each[index], rows.scale + row, rows.error + row, queries.each[index].add + row);
          Lanes::store(beside, low);
        }
        for (; mask != 0; mask &= mask - 1) {
          const uint32_t lane = static_cast<uint32_t>(__builtin_ctz(mask));
          *hits++ = ScanI8Hit{static_cast<uint32_t>(index), static_cast<uint32_t>(row) + lane, values[lane], low[lane]};
        }
      }
    }
    return hits;
  }

  // Rows inside, so that a handful of queries stays in the first-level cache while a tile of rows passes from the second.
  template <int Q>
  static inline ScanI8Hit* column(const ScanI8Queries& queries, size_t query, const ScanI8Rows& rows, ScanI8Hit* hits) {
    for (size_t first = 0; first < rows.blocks * kScanBlockRows; first += kUnit) hits = unit<Q>(queries, query, rows, first, hits);
    return hits;
  }

  // The queries that do not fill a group: fewer than Q + 1 of them.
  template <int Q>
  static inline ScanI8Hit* rest(const ScanI8Queries& queries, size_t query, const ScanI8Rows& rows, ScanI8Hit* hits) {
    if (queries.count - query == Q) return column<Q>(queries, query, rows, hits);
    if constexpr (Q > 1) return rest<Q - 1>(queries, query, rows, hits);
    return hits;
  }

  static size_t scan(const ScanI8Queries* queries, const ScanI8Rows* rows, ScanI8Hit* hits) {
    ScanI8Hit* end = hits;
    size_t i = 0;
    for (; i + Lanes::kQueries <= queries->count; i += Lanes::kQueries) end = column<Lanes::kQueries>(*queries, i, *rows, end);
    if (i < queries->count) end = rest<Lanes::kQueries - 1>(*queries, i, *rows, end);
    return static_cast<size_t>(end - hits);
  }
};

}  // namespace nf::kernels
