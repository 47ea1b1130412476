// The scan's loops, shared by the vector targets: a block of 32 rows against `kQueries` queries at a time.
//
// `Lanes` is the target's arithmetic on a register of bytes (two or four groups): load(p), low(codes) and high(codes) (the patterns of rows
// 0 to 15 and 16 to 31), look(table, patterns), add16, odd(bytes) (odd bytes as 16-bit values), and the sums' end: fold(even, odd, out)
// writes the sixteen rows' sums in order, reached(...) tests kTested rows. It is a type of the including file's unnamed namespace, so each
// file keeps its own copy of this code.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/scan_1bit/contract.h"

namespace nf::kernels {

template <typename Lanes>
struct Scan1BitLoops {
  using Bytes = typename Lanes::Bytes;
  static constexpr size_t kStep = sizeof(Bytes);
  static_assert(kSignGroupUnit * kSignGroupBytes % kStep == 0, "a whole number of registers for each unit of groups");

  // Bytes are added as 16-bit values: `all` sums a pair's even byte plus 256 times its odd one, modulo 2^16, and `odd` the odd one alone.
  struct Sums {
    Bytes all, odd;
    inline void add(Bytes entries) {
      all = Lanes::add16(all, entries);
      odd = Lanes::add16(odd, Lanes::odd(entries));
    }
  };

  template <int Q>
  static inline Scan1BitHit* block(const Scan1BitQuery* queries, size_t query, const Scan1BitRows& rows, size_t first, Scan1BitHit* hits) {
    Sums sums[Q][2];
#pragma GCC unroll 8
    for (int a = 0; a < Q; ++a) sums[a][0] = sums[a][1] = {Lanes::zero(), Lanes::zero()};
    const size_t bytes = rows.groups * kSignGroupBytes;
    const uint8_t* const codes = rows.codes + first / kSignBlockRows * bytes;
    for (size_t at = 0; at < bytes; at += kStep) {
      const Bytes both = Lanes::load(codes + at), low = Lanes::low(both), high = Lanes::high(both);
#pragma GCC unroll 8
      for (int a = 0; a < Q; ++a) {
        const Bytes table = Lanes::load(queries[a].tables + at);
        sums[a][0].add(Lanes::look(table, low));
        sums[a][1].add(Lanes::look(table, high));
      }
    }
    alignas(64) uint16_t values[Q][kSignBlockRows];
#pragma GCC unroll 8
    for (int a = 0; a < Q; ++a) {
      Lanes::fold(sums[a][0].all, sums[a][0].odd, values[a]);
      Lanes::fold(sums[a][1].all, sums[a][1].odd, values[a] + kSignGroupBytes);
    }
    for (int a = 0; a < Q; ++a) {
      for (size_t part = 0; part < kSignBlockRows; part += Lanes::kTested) {
        const size_t row = first + part;
        uint32_t mask = Lanes::reached(values[a] + part, queries[a], rows.factor + row, rows.error + row, queries[a].add + row);
        for (; mask != 0; mask &= mask - 1) {
          const uint32_t lane = static_cast<uint32_t>(__builtin_ctz(mask));
          *hits++ = Scan1BitHit{static_cast<uint32_t>(query + static_cast<size_t>(a)), static_cast<uint32_t>(row) + lane, values[a][part + lane]};
        }
      }
    }
    return hits;
  }

  // Rows inside: the tables of a handful of queries stay in the first-level cache while a tile of rows passes.
  template <int Q>
  static inline Scan1BitHit* column(const Scan1BitQuery* queries, size_t query, const Scan1BitRows& rows, Scan1BitHit* hits) {
    for (size_t first = 0; first < rows.blocks * kSignBlockRows; first += kSignBlockRows) hits = block<Q>(queries, query, rows, first, hits);
    return hits;
  }

  static size_t scan(const Scan1BitQuery* queries, size_t nq, const Scan1BitRows* rows, Scan1BitHit* hits) {
    Scan1BitHit* end = hits;
    size_t i = 0;
    for (; i + Lanes::kQueries <= nq; i += Lanes::kQueries) end = column<Lanes::kQueries>(queries + i, i, *rows, end);
    for (; i < nq; ++i) end = column<1>(queries + i, i, *rows, end);
    return static_cast<size_t>(end - hits);
  }
};

}  // namespace nf::kernels
