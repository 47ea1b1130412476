#include "score/few.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "codec/rows.h"
#include "score/gather.h"

namespace nf::score {
namespace {

// Of the rows of a tile, the part below which they are read one by one. A row read alone comes from a place that no prefetcher foresees,
// all 24 lines of it: some 150 ns, against 27 ns a row for one query by codes and 5 ns a row by signs.
constexpr std::size_t kFewByCodes = 8, kFewBySigns = 64;

// Takes the allowed rows of `tile` for query `index`, offering whenever there is no more room.
void take_few(const Task& task, std::size_t index, std::size_t nq, const Tile& tile, Scratch& scratch, Collector* best, const ExactScore* exact) {
  const std::size_t dim = task.rows.dim;
  std::uint8_t places[kTileRows];
  const std::size_t count = task.allowed_rows(index, tile, places);
  FewRows& few = scratch.few;
  for (std::size_t j = 0; j < count; ++j) {
    if (few.count == FewRows::kMost) offer_few(task, index, nq, scratch, best, exact);
    const float* const row = row_of(tile, task.rows.storage, dim, places[j], few.dense.data() + few.count * dim);
    if (task.rows.storage == Storage::float32) prefetch_lines(row, dim * sizeof(float));
    few.row[few.count] = row;
    few.slot[few.count++] = tile.first + places[j];
    few.max_norm = std::max(few.max_norm, tile.max_norm);
  }
}

}  // namespace

Left left_of(const Task& task, std::size_t begin, std::size_t nq, const Tile& tile) {
  if (!task.filtered()) return Left::many;
  std::uint8_t places[kTileRows];
  const std::size_t masks = task.options.mask.rows > 1 ? nq : 1;
  std::size_t most = 0;
  for (std::size_t i = 0; i < masks; ++i) most = std::max(most, task.allowed_rows(begin + i, tile, places));
  if (most == 0) return Left::none;
  return most * (task.signs ? kFewBySigns : kFewByCodes) <= tile.count ? Left::few : Left::many;
}

void scan_few(const Task& task, std::size_t begin, std::size_t nq, const Tile& tile, Scratch& scratch, Collector* best,
              const std::vector<ExactScore>& exact) {
  if (task.options.mask.rows <= 1) {
    take_few(task, begin, nq, tile, scratch, best, exact.data());
    return;
  }
  for (std::size_t i = 0; i < nq; ++i) {
    take_few(task, begin + i, 1, tile, scratch, best + i, exact.data() + i);
    offer_few(task, begin + i, 1, scratch, best + i, exact.data() + i);
  }
}

void offer_few(const Task& task, std::size_t begin, std::size_t nq, Scratch& scratch, Collector* best, const ExactScore* exact) {
  FewRows& few = scratch.few;
  if (few.count == 0) return;
  const std::size_t dim = task.rows.dim;
  const bool l2 = task.rows.metric == Metric::l2;
  const float* const queries = task.queries[begin].scan;
  if (nq == 1) {
    (l2 ? task.l2sqr->gather : task.dot->gather)(queries, few.row, few.count, dim, scratch.scores.data());
  } else {
    for (std::size_t j = 0; j < few.count; ++j) {
      float* const place = few.dense.data() + j * dim;
      if (few.row[j] != place) std::memcpy(place, few.row[j], dim * sizeof(float));
    }
    const std::size_t stride = static_cast<std::size_t>(task.queries[begin + 1].scan - queries);
    (l2 ? task.l2sqr->block : task.dot->block)(queries, stride, nq, few.dense.data(), dim, few.count, dim, scratch.scores.data(), kTileRows);
  }
  for (std::size_t i = 0; i < nq; ++i) {
    const Bound bound = Bound::of(task.rows.metric, dim, task.queries[begin + i], static_cast<double>(few.max_norm));
    for (std::size_t j = 0; j < few.count; ++j) {
      const double value = static_cast<double>(scratch.scores[i * kTileRows + j]);
      best[i].offer(bound.around(l2 ? -value : value, task.bias(begin + i, few.slot[j]), few.slot[j]), exact[i]);
    }
    best[i].settle();
  }
  few.count = 0;
  few.max_norm = 0.0f;
}

}  // namespace nf::score
