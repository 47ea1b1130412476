#include "score/coarse.h"

#include <algorithm>
#include <cmath>

#include "codec/signs.h"
#include "score/few.h"

namespace nf::score {
namespace {

// Codes that the scan after this one is likely to read.
struct Ahead {
  const std::int8_t* codes = nullptr;
  std::size_t bytes = 0;
};

// Scans a run of tiles, given as one, by their codes; returns how many pairs they let through. `ahead` is what the next scan reads.
std::size_t scan_codes(const Task& task, std::size_t begin, std::size_t nq, const Tile& tile, Ahead ahead, Scratch& scratch, Collector* best,
                       const std::vector<ExactScore>& exact) {
  const Metric metric = task.rows.metric;
  const MatrixView<float>& bias = task.options.bias;
  const std::size_t lines = bias.rows > 1 ? nq : 1;
  const auto add_of = [&](std::size_t i) { return scratch.add.data() + (lines > 1 ? i * max_span(task.rows.dim) * kTileRows : 0); };
  double max_add = 0.0;
  for (std::size_t i = 0; i < lines && (bias.data != nullptr || metric == Metric::l2); ++i) {
    const float* const given = bias.data == nullptr ? nullptr : bias.row(bias.rows > 1 ? begin + i : 0) + tile.first;
    max_add = std::max(max_add, add_terms(metric, tile.codes, given, tile.count, add_of(i)));
  }
  CodedProbes& probes = scratch.probes;
  probes.fit(metric, task.rows.dim, *task.coded, begin, nq, static_cast<double>(tile.max_norm), max_add, add_of);
  for (std::size_t i = 0; i < nq; ++i) {
    best[i].settle();
    if (scratch.shared != nullptr) scratch.shared[i].exchange(best[i]);
    probes.set_threshold(i, best[i].threshold());
  }
  const kernels::ScanI8Rows rows{tile.codes.codes, codec::packed_blocks(tile.count), codec::packed_groups(task.rows.dim), tile.codes.scale,
                                 tile.codes.error, ahead.codes, ahead.bytes};
  const kernels::ScanI8Queries queries = task.coded->from(begin, nq, probes.each());
  const std::size_t found = task.coded_scan->scan(&queries, &rows, scratch.hits.data());
  for (std::size_t h = 0; h < found; ++h) {
    const kernels::ScanI8Hit& hit = scratch.hits[h];
    const std::uint64_t slot = tile.first + hit.row;
    if (hit.row >= tile.count || !task.allowed(begin + hit.query, slot)) continue;
    best[hit.query].offer(probes.bound(hit.query).around(tile.codes, hit, task.bias(begin + hit.query, slot), slot), exact[hit.query]);
  }
  return found;
}

// How many tiles from `t` on are one run of codes that some query wants many rows of; `run` becomes that run, as one tile.
std::size_t coded_run(const Task& task, std::size_t begin, std::size_t nq, std::size_t t, std::size_t end, std::size_t most, Tile& run) {
  const Rows& rows = task.rows;
  run = rows.tile(t);
  std::size_t tiles = 1;
  for (; tiles < most && t + tiles < end; ++tiles) {
    const Tile next = rows.tile(t + tiles);
    if (run.count != tiles * kTileRows || !(next.codes == run.codes.from(run.count, rows.dim)) || left_of(task, begin, nq, next) != Left::many) break;
    run.count += next.count;
    run.max_norm = std::max(run.max_norm, next.max_norm);
  }
  return tiles;
}

Ahead behind(const Task& task, std::size_t next, std::size_t end, std::size_t span) {
  if (task.filtered() || task.signs || next >= end) return {};  // whether the next tiles will be scanned by codes is not known
  const Tile* const tiles = task.rows.tiles;
  std::size_t count = 1;
  while (count < span && next + count < end && tiles[next + count].codes == tiles[next].codes.from(count * kTileRows, task.rows.dim)) ++count;
  return {tiles[next].codes.codes, codec::packed_bytes(count * kTileRows, task.rows.dim)};
}

// Scans a tile by its signs. What they let through is bounded by float32 scores: an int8 row lies scattered over a block, so its codes would
// cost more cache lines than the row itself. Returns how many pairs came through.
std::size_t scan_signs(const Task& task, std::size_t begin, std::size_t nq, const Tile& tile, const SignTile& signs, Scratch& scratch, Collector* best,
                       const std::vector<ExactScore>& exact) {
  const std::size_t dim = task.rows.dim;
  const MatrixView<float>& bias = task.options.bias;
  const float* add = signs.base;
  double max_add = static_cast<double>(signs.max_base);
  for (std::size_t i = 0; i < nq; ++i) {
    if (bias.data != nullptr && (bias.rows > 1 || i == 0)) {
      const float* const given = bias.row(bias.rows > 1 ? begin + i : 0) + tile.first;
      float* const place = scratch.add.data() + (bias.rows > 1 ? i * kTileRows : 0);
      double largest = 0.0;
      for (std::size_t j = 0; j < tile.count; ++j) {
        place[j] = signs.base[j] + given[j];
        largest = std::max(largest, std::fabs(static_cast<double>(given[j])));
      }
      add = place;
      max_add = static_cast<double>(signs.max_base) + largest;
    }
    scratch.sign_probes[i] = task.signs->probe(begin + i, best[i].threshold(), signs, static_cast<double>(tile.max_norm), add, max_add);
  }
  const kernels::Scan1BitRows rows{signs.codes.codes, (tile.count + kernels::kSignBlockRows - 1) / kernels::kSignBlockRows, codec::sign_groups(dim),
                                   signs.codes.factor, signs.codes.error};
  const std::size_t found = task.sign_scan->scan(scratch.sign_probes.data(), nq, &rows, scratch.sign_hits.data());
  const bool l2 = task.rows.metric == Metric::l2;
  for (std::size_t h = 0; h < found; ++h) {
    const kernels::Scan1BitHit& hit = scratch.sign_hits[h];
    const std::uint64_t slot = tile.first + hit.row;
    if (hit.row >= tile.count || !task.allowed(begin + hit.query, slot)) continue;
    const Query& query = task.queries[begin + hit.query];
    const float* const row = row_of(tile, task.rows.storage, dim, hit.row, scratch.decoded.data());
    const double score = l2 ? -static_cast<double>(task.l2sqr->pair(query.scan, row, dim)) : static_cast<double>(task.dot->pair(query.scan, row, dim));
    const Bound bound = Bound::of(task.rows.metric, dim, query, static_cast<double>(tile.max_norm));
    best[hit.query].offer(bound.around(score, task.bias(begin + hit.query, slot), slot), exact[hit.query]);
  }
  for (std::size_t i = 0; i < nq && found != 0; ++i) best[i].settle();
  return found;
}

}  // namespace

std::size_t scanned_by_codes(const Task& task, std::size_t begin, std::size_t nq, std::size_t t, std::size_t end, Scratch& scratch, Collector* best,
                             const std::vector<ExactScore>& exact) {
  if (!task.coded) return 0;
  if (scratch.coded_patience.resting()) return 0;
  Tile run;
  const std::size_t tiles = coded_run(task, begin, nq, t, end, scratch.span, run);
  if (!CodedBound::fits(run.max_norm)) return 0;
  const Ahead ahead = behind(task, t + tiles, end, std::min(2 * scratch.span, max_span(task.rows.dim)));
  const bool crowded = scratch.coded_patience.learn(scan_codes(task, begin, nq, run, ahead, scratch, best, exact), nq * run.count);
  // A tile at a time where the signs may take the next one.
  scratch.span = crowded || task.signs ? 1 : std::min(2 * scratch.span, max_span(task.rows.dim));
  return tiles;
}

bool scanned_by_signs(const Task& task, std::size_t begin, std::size_t nq, const Tile& tile, std::size_t t, Scratch& scratch, Collector* best,
                   const std::vector<ExactScore>& exact) {
  if (!task.signs || !CodedBound::fits(tile.max_norm) || scratch.sign_patience.resting()) return false;
  const std::size_t found = scan_signs(task, begin, nq, tile, task.rows.first_pass->tile(t), scratch, best, exact);
  scratch.sign_patience.learn(found, nq * tile.count);
  return true;
}

}  // namespace nf::score
