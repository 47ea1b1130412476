// The exact scorer: one blocked scan with a proven error bound, a running top-k per query, float64 for what the bound leaves open. Tiles
// with int8 codes are scanned by them (score/coded.h), others, and those where codes exclude too little, in float32.
//
// The result is that of scoring every allowed row in float64 and sorting by (score descending, slot ascending):
//   cosine  (q . x) / |q|, x the stored unit row; 0 for a zero query or a zero row
//   ip      q . x
//   l2      -sum (q_i - x_i)^2
// plus the row's bias where one is given. Scores that differ by less than dim * 2^-52 * |q| |x| may swap.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/metric.h"
#include "base/view.h"
#include "codec/packed.h"

namespace nf::score {

// A run of stored rows, at most kTileRows of them, with the largest norm among them (rounded up). int8 rows are their codes.
constexpr std::size_t kTileRows = 128;
struct Tile {
  const unsigned char* rows;
  std::uint64_t first;  // slot of its first row
  std::size_t count;
  float max_norm;
  codec::PackedView codes;  // of the same rows, from a block's start; null where there are none
};

// Row `index` of the tile as float32: where it lies, or decoded into `place`.
const float* row_of(const Tile& tile, Storage storage, std::size_t dim, std::size_t index, float* place);

class FirstPass;

// The rows to search, borrowed: tiles in rising slot order without gaps from slot 0; the last one may reach beyond `slots`.
struct Rows {
  std::size_t dim = 0;
  Metric metric = Metric::cosine;
  Storage storage = Storage::float32;
  const Tile* tiles = nullptr;
  std::size_t tile_count = 0;
  std::uint64_t slots = 0;
  const std::uint8_t* live = nullptr;  // one byte per slot, null when all are live
  const FirstPass* first_pass = nullptr;  // one-bit codes of the same tiles, for a guarantee below 1
  bool unchecked = false;              // float32 rows that nobody looked at: their norms are found, and bad rows refused, as tiles are scanned

  // The tile without what reaches beyond `slots`: masks and biases end there.
  Tile tile(std::size_t t) const {
    Tile whole = tiles[t];
    whole.count = static_cast<std::size_t>(std::min<std::uint64_t>(whole.count, slots - whole.first));
    return whole;
  }
};

struct Options {
  std::size_t k = 10;
  int threads = 1;
  // Below 1: the probability, over the first pass's rotation, with which each query's answer is the exact one. Rows without one-bit codes are
  // searched exactly all the same.
  double guarantee = 1.0;
  // By slot, each (1 or nq, rows.slots); null when absent. Bias values are finite.
  MatrixView<std::uint8_t> mask;
  MatrixView<float> bias;
};

// Where a search puts its answer. slots: (nq, k), -1 where missing. scores: (nq, k), NaN where missing. counts: (nq). rescored: (nq), the rows
// whose exact score was computed; may be null.
struct Answer {
  std::int64_t* slots;
  float* scores;
  std::int64_t* counts;
  std::int64_t* rescored = nullptr;
};

// Throws InputError "queries: row ..." (and "vectors: row ..." for unchecked rows) for NaN, infinity or a norm beyond float32.
void search(const Rows& rows, MatrixView<float> queries, const Options& options, const Answer& answer);

}  // namespace nf::score
