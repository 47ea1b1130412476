#include "score/borrowed.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/aligned.h"
#include "kernels/dispatch.h"
#include "parallel/pool.h"
#include "score/door.h"
#include "score/plan.h"

namespace nf::score {
namespace {

// A dense copy for cosine, the caller's memory otherwise; the norms are those of the rows as given.
struct Prepared {
  MatrixView<float> rows;
  std::vector<double> norms;
  AlignedBuffer<float> unit;
};

Prepared prepare(Metric metric, MatrixView<float> given, int threads, const char* what) {
  Prepared prepared{given, std::vector<double>(given.rows), {}};
  if (metric == Metric::cosine) {
    prepared.unit = AlignedBuffer<float>(given.rows * given.cols);
    prepared.rows = MatrixView<float>(prepared.unit.data(), given.rows, given.cols);
  }
  raise_if_bad(parallel::parallel_for(given.rows, threads, [&](std::size_t begin, std::size_t end, std::size_t) {
    for (std::size_t i = begin; i < end; ++i) {
      prepared.norms[i] = checked_norm(given.row(i), given.cols, what, i);
      if (metric == Metric::cosine) normalize(given.row(i), given.cols, prepared.norms[i], prepared.unit.data() + i * given.cols);
    }
  }));
  return prepared;
}

std::vector<Tile> tiles_of(Metric metric, const Prepared& prepared) {
  std::vector<Tile> tiles;
  for (std::size_t first = 0; first < prepared.rows.rows; first += kTileRows) {
    const std::size_t count = std::min(kTileRows, prepared.rows.rows - first);
    // A unit row's norm exceeds 1 by its rounding only: 2^-24 of each value.
    double peak = metric == Metric::cosine ? 1.0 + 0x1p-20 : 0.0;
    for (std::size_t i = first; metric != Metric::cosine && i < first + count; ++i) peak = std::max(peak, prepared.norms[i]);
    const float norm = static_cast<float>(std::min<double>(peak * (1.0 + 0x1p-20), std::numeric_limits<float>::max()));
    tiles.push_back(Tile{reinterpret_cast<const unsigned char*>(prepared.rows.row(first)), first, count, norm, {}});
  }
  return tiles;
}

float score64(Metric metric, const float* q, const float* r, std::size_t dim) {
  return static_cast<float>(metric == Metric::l2 ? -l2sqr64(q, r, dim) : dot64(q, r, dim));
}

}  // namespace

void score_matrix(Metric metric, MatrixView<float> queries, MatrixView<float> rows, int threads, float* out) {
  const std::size_t dim = rows.cols, n = rows.rows;
  const kernels::DotF32& dot = kernels::dot_f32();
  const kernels::L2SqrF32& l2sqr = kernels::l2sqr_f32();
  const Prepared q = prepare(metric, queries, threads, "queries"), r = prepare(metric, rows, threads, "vectors");
  const double q_peak = q.norms.empty() ? 0.0 : *std::max_element(q.norms.begin(), q.norms.end());
  const std::vector<Tile> tiles = tiles_of(metric, r);
  raise_if_bad(parallel::parallel_for(tiles.size(), threads, [&](std::size_t begin, std::size_t end, std::size_t) {
    for (std::size_t t = begin; t < end; ++t) {
      const Tile& tile = tiles[t];
      float* const place = out + tile.first;
      const float* const tile_rows = reinterpret_cast<const float*>(tile.rows);
      const auto block = metric == Metric::l2 ? l2sqr.block : dot.block;
      block(q.rows.data, dim, queries.rows, tile_rows, dim, tile.count, dim, place, n);
      const bool wide = needs_float64(metric, q_peak, tile.max_norm);
      for (std::size_t i = 0; i < queries.rows && (wide || metric == Metric::l2); ++i) {
        for (std::size_t j = 0; j < tile.count; ++j) {
          float& score = place[i * n + j];
          score = wide ? score64(metric, q.rows.row(i), tile_rows + j * dim, dim) : -score;
        }
      }
    }
  }));
}

void topk(Metric metric, MatrixView<float> queries, MatrixView<float> rows, std::size_t k, int threads, std::int64_t* slots, float* scores,
          std::int64_t* counts) {
  // Without queries nothing is scanned, but bad rows are refused all the same.
  const bool unchecked = metric != Metric::cosine && queries.rows != 0;
  const Prepared prepared = unchecked ? Prepared{rows, std::vector<double>(rows.rows), {}} : prepare(metric, rows, threads, "vectors");
  const std::vector<Tile> tiles = tiles_of(metric, prepared);
  Rows searched;
  searched.dim = rows.cols;
  searched.metric = metric;
  searched.tiles = tiles.data();
  searched.tile_count = tiles.size();
  searched.slots = rows.rows;
  searched.unchecked = unchecked;
  Options options;
  options.k = k;
  options.threads = threads;
  search(searched, queries, options, Answer{slots, scores, counts});
}

}  // namespace nf::score
