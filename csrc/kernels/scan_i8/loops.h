// The scan's loops, shared by the vector targets: a unit of rows (two registers of sums) against `kQueries` queries at a time.
//
// `Lanes` is the target's arithmetic: Ints (a register of sums, two for each of kRows rows), widen(p) (four codes of each of kRows rows as
// 16-bit values), spread(q) (four query codes, repeated), plus(sum, rows, query), and the tests at the end. It is a type of the including
// file's unnamed namespace, so each file keeps its own copy of this code.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/scan_i8/contract.h"

namespace nf::kernels {

template <typename Lanes>
struct ScanLoops {
  static constexpr size_t kUnit = 2 * Lanes::kRows;
  static constexpr size_t kGroupBytes = kScanGroupDims * kScanBlockRows;
  static_assert(kScanBlockRows % kUnit == 0, "a unit lies in one block");

  // Q queries, one unit of rows that begins with row `first`.
  template <int Q>
  static inline ScanI8Hit* unit(const ScanI8Query* queries, size_t query, const ScanI8Rows& rows, size_t first, ScanI8Hit* hits) {
    typename Lanes::Ints sums[Q][2];
#pragma GCC unroll 16
    for (int a = 0; a < Q; ++a) sums[a][0] = sums[a][1] = Lanes::zero();
    const int8_t* codes = rows.codes + first / kScanBlockRows * rows.groups * kGroupBytes + first % kScanBlockRows * 4;
    for (size_t g = 0; g < rows.groups; ++g, codes += kGroupBytes) {
      const typename Lanes::Ints low = Lanes::widen(codes), high = Lanes::widen(codes + 4 * Lanes::kRows);
#pragma GCC unroll 16
      for (int a = 0; a < Q; ++a) {
        const typename Lanes::Ints four = Lanes::spread(queries[a].codes + 4 * g);
        sums[a][0] = Lanes::plus(sums[a][0], low, four);
        sums[a][1] = Lanes::plus(sums[a][1], high, four);
#if defined(__AVX2__)  // not where the tests emulate these registers
        // Keeps the sums in order: gcc 12 otherwise makes several products before it adds any, runs out of registers and moves half of the
        // sums through memory, which halves the speed.
        __asm__ volatile("" : "+v"(sums[a][0]), "+v"(sums[a][1]));
#endif
      }
    }
    // Unrolled, for sums that are indexed by a variable live in memory during the loop above too.
    typename Lanes::Products products[Q];
#pragma GCC unroll 16
    for (int a = 0; a < Q; ++a) products[a] = Lanes::fold(sums[a][0], sums[a][1]);
    for (int a = 0; a < Q; ++a) {
      const ScanI8Query& each = queries[a];
      uint32_t mask = Lanes::reached(products[a], each.factor, each.slack, each.cut, rows.scale + first, rows.error + first, each.add + first);
      if (mask == 0) continue;
      alignas(64) int32_t values[kUnit];
      Lanes::store(products[a], values);
      for (; mask != 0; mask &= mask - 1) {
        const uint32_t lane = static_cast<uint32_t>(__builtin_ctz(mask));
        *hits++ = ScanI8Hit{static_cast<uint32_t>(query + static_cast<size_t>(a)), static_cast<uint32_t>(first) + lane, values[lane]};
      }
    }
    return hits;
  }

  // Rows inside, so that a handful of queries stays in the first-level cache while a tile of rows passes from the second.
  template <int Q>
  static inline ScanI8Hit* column(const ScanI8Query* queries, size_t query, const ScanI8Rows& rows, ScanI8Hit* hits) {
    for (size_t first = 0; first < rows.blocks * kScanBlockRows; first += kUnit) hits = unit<Q>(queries, query, rows, first, hits);
    return hits;
  }

  // The queries that do not fill a group: fewer than Q + 1 of them.
  template <int Q>
  static inline ScanI8Hit* rest(const ScanI8Query* queries, size_t query, size_t left, const ScanI8Rows& rows, ScanI8Hit* hits) {
    if (left == Q) return column<Q>(queries, query, rows, hits);
    if constexpr (Q > 1) return rest<Q - 1>(queries, query, left, rows, hits);
    return hits;
  }

  static size_t scan(const ScanI8Query* queries, size_t nq, const ScanI8Rows* rows, ScanI8Hit* hits) {
    ScanI8Hit* end = hits;
    size_t i = 0;
    for (; i + Lanes::kQueries <= nq; i += Lanes::kQueries) end = column<Lanes::kQueries>(queries + i, i, *rows, end);
    if (i < nq) end = rest<Lanes::kQueries - 1>(queries + i, i, nq - i, *rows, end);
    return static_cast<size_t>(end - hits);
  }
};

}  // namespace nf::kernels
