#include "score/scan.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <vector>

#include "base/aligned.h"
#include "codec/rows.h"
#include "kernels/dispatch.h"
#include "parallel/pool.h"
#include "score/coded.h"
#include "score/door.h"
#include "score/exact.h"
#include "score/patience.h"
#include "score/plan.h"
#include "score/signs.h"

namespace nf::score {
namespace {

// A block of queries that stays in a 512 KiB second-level cache beside the rows' stream; a multiple of 12 suits 3- and 4-query kernels.
constexpr std::size_t kQueryBlockBytes = 128 * 1024;
constexpr std::size_t kMaxQueryBlock = 96;
// With this many queries for each thread, threads take queries apart; with fewer, they take rows apart.
constexpr std::size_t kQueriesPerThread = 32;
// Products below which a further thread costs more to wake (some 10 us) than it saves at 10^10 a second.
constexpr std::size_t kProductsPerThread = 1 << 18;
// Neighbouring tiles are scanned by their codes in one go, so that what a query needs before each scan costs little beside it: as many bytes
// of codes as stay in a 512 KiB second-level cache while query after query passes over them. One tile at first and twice as many each time,
// because a query's threshold moves only between scans.
constexpr std::size_t kSpanBytes = 192 * 1024;
constexpr std::size_t kMaxSpan = 16;
// Scores looked at together: a run without any candidate is passed by with vector compares.
constexpr std::size_t kRun = 16;

std::size_t max_span(std::size_t dim) { return std::clamp<std::size_t>(kSpanBytes / (std::max<std::size_t>(dim, 1) * kTileRows), 1, kMaxSpan); }

std::size_t query_block(std::size_t dim) {
  const std::size_t fit = kQueryBlockBytes / (std::max<std::size_t>(dim, 1) * sizeof(float));
  return std::clamp<std::size_t>(fit / 12 * 12, 12, kMaxQueryBlock);
}

// Everything the threads share, read-only.
struct Task {
  const Rows& rows;
  const Options& options;
  std::vector<Query> queries;
  AlignedBuffer<float> unit_queries;  // cosine only
  const kernels::DotF32* dot;
  const kernels::L2SqrF32* l2sqr;
  const kernels::ScanI8* coded_scan;
  std::optional<CodedQueries> coded;  // absent where they are of no use
  const kernels::Scan1Bit* sign_scan;
  std::optional<SignQueries> signs;  // likewise, and without a first pass

  Task(const Rows& rows_, MatrixView<float> given, const Options& options_)
      : rows(rows_),
        options(options_),
        queries(given.rows),
        dot(&kernels::dot_f32()),
        l2sqr(&kernels::l2sqr_f32()),
        coded_scan(&kernels::scan_i8()),
        sign_scan(&kernels::scan_1bit()) {
    const bool unit = rows.metric == Metric::cosine;
    if (unit) unit_queries = AlignedBuffer<float>(given.rows * rows.dim);
    for (std::size_t i = 0; i < given.rows; ++i) {
      const double norm = checked_norm(given.row(i), rows.dim, "queries", i);
      float* const place = unit ? unit_queries.data() + i * rows.dim : nullptr;
      if (unit) normalize(given.row(i), rows.dim, norm, place);
      queries[i] = Query{given.row(i), unit ? place : given.row(i), norm};
    }
    if (rows.tile_count != 0 && rows.tiles[0].codes.codes != nullptr) {
      coded.emplace(rows.metric, rows.dim, queries, *coded_scan);
      if (!coded->usable()) coded.reset();
    }
    if (rows.first_pass != nullptr && coded) {
      signs.emplace(*rows.first_pass, rows.metric, rows.dim, queries, options.guarantee, useful_k());
      if (!signs->usable()) signs.reset();
    }
  }

  // No query can have more answers than there are slots: a huge k must not size anything.
  std::size_t useful_k() const { return std::max<std::size_t>(1, std::min<std::size_t>(options.k, rows.slots)); }

  bool allowed(std::size_t query, std::uint64_t slot) const {
    if (rows.live != nullptr && rows.live[slot] == 0) return false;
    const MatrixView<std::uint8_t>& mask = options.mask;
    return mask.data == nullptr || mask.row(mask.rows == 1 ? 0 : query)[slot] != 0;
  }

  double bias(std::size_t query, std::uint64_t slot) const {
    const MatrixView<float>& bias = options.bias;
    return bias.data == nullptr ? 0.0 : static_cast<double>(bias.row(bias.rows == 1 ? 0 : query)[slot]);
  }

  bool any_allowed(const Tile& tile) const {
    if (options.mask.rows > 1) return true;
    for (std::size_t j = 0; j < tile.count; ++j) {
      if (allowed(0, tile.first + j)) return true;
    }
    return false;
  }
};

// One thread's memory.
struct Scratch {
  AlignedBuffer<float> scores;
  AlignedBuffer<float> decoded;  // a tile's rows, or one row while exact scores are computed
  AlignedBuffer<float> add;      // row terms, one line for each query that has its own
  std::vector<kernels::ScanI8Query> probes;
  std::vector<CodedBound> bounds;
  AlignedBuffer<kernels::ScanI8Hit> hits;
  std::vector<kernels::Scan1BitQuery> sign_probes;
  std::vector<kernels::Scan1BitHit> sign_hits;
  Patience coded_patience, sign_patience;
  std::size_t span = 1;  // tiles of the next scan by codes

  Scratch(const Task& task, std::size_t queries)
      : scores(queries * kTileRows),
        decoded(task.rows.storage == Storage::float32 ? 0 : (kTileRows + 1) * task.rows.dim),
        add(max_span(task.rows.dim) * kTileRows * (task.options.bias.rows > 1 ? queries : 1)),
        probes(task.coded ? queries : 0),
        hits(task.coded ? queries * max_span(task.rows.dim) * kTileRows : 0),
        sign_probes(task.signs ? queries : 0),
        sign_hits(task.signs ? queries * kTileRows : 0) {
    add.zero();
  }
};

const Tile& tile_of(const Rows& rows, std::uint64_t slot) {
  const Tile* const end = rows.tiles + rows.tile_count;
  return *(std::upper_bound(rows.tiles, end, slot, [](std::uint64_t s, const Tile& each) { return s < each.first; }) - 1);
}

double exact_score(const Task& task, std::size_t index, const float* row, std::uint64_t slot) {
  const double score = exact_score(task.rows.metric, task.queries[index], row, task.rows.dim) + task.bias(index, slot);
  // Only a damaged file opened without verification holds NaN; every comparison below needs an order.
  return std::isnan(score) ? -std::numeric_limits<double>::infinity() : score;
}

ExactScore exact_for(const Task& task, std::size_t index, Scratch& scratch) {
  return [&task, index, &scratch](std::uint64_t slot) {
    float* const place = scratch.decoded.data() == nullptr ? nullptr : scratch.decoded.data() + kTileRows * task.rows.dim;
    const Tile& tile = tile_of(task.rows, slot);
    return exact_score(task, index, row_of(tile, task.rows.storage, task.rows.dim, slot - tile.first, place), slot);
  };
}

// Offers every row of the tile with its exact score: for values that float32 cannot hold.
void offer_exactly(const Task& task, std::size_t index, const Tile& tile, Collector& best, const ExactScore& exact) {
  for (std::size_t j = 0; j < tile.count; ++j) {
    const std::uint64_t slot = tile.first + j;
    if (task.allowed(index, slot)) best.offer_exactly(slot, exact);
  }
}

// Offers the rows of the tile whose scanned value (times `sign`) can still matter.
void offer_scanned(const Task& task, std::size_t index, const Tile& tile, const float* values, double sign, Collector& best, const ExactScore& exact) {
  const Bound bound = Bound::of(task.rows.metric, task.rows.dim, task.queries[index], tile.max_norm);
  const bool biased = task.options.bias.data != nullptr;
  const float factor = static_cast<float>(sign);
  for (std::size_t run = 0; run < tile.count; run += kRun) {
    const std::size_t end = std::min(run + kRun, tile.count);
    if (!biased) {
      const float cut = std::nextafter(static_cast<float>(bound.cut(best.threshold())), -std::numeric_limits<float>::infinity());
      int hits = 0;
      for (std::size_t j = run; j < end; ++j) hits += factor * values[j] >= cut ? 1 : 0;
      if (hits == 0) continue;
    }
    for (std::size_t j = run; j < end; ++j) {
      const std::uint64_t slot = tile.first + j;
      const Candidate candidate = bound.around(sign * static_cast<double>(values[j]), biased ? task.bias(index, slot) : 0.0, slot);
      if (candidate.upper >= best.threshold() && task.allowed(index, slot)) best.offer(candidate, exact);
    }
  }
}

// Scans a run of tiles, given as one, by their codes; returns how many pairs they let through.
std::size_t scan_codes(const Task& task, std::size_t begin, std::size_t nq, const Tile& tile, Scratch& scratch, Collector* best,
                       const std::vector<ExactScore>& exact) {
  const Metric metric = task.rows.metric;
  const MatrixView<float>& bias = task.options.bias;
  double max_add = 0.0;
  std::vector<CodedBound>& bounds = scratch.bounds;
  bounds.clear();
  for (std::size_t i = 0; i < nq; ++i) {
    const bool own = bias.rows > 1;
    float* const add = scratch.add.data() + (own ? i * max_span(task.rows.dim) * kTileRows : 0);
    if (own || i == 0) {
      const float* const given = bias.data == nullptr ? nullptr : bias.row(own ? begin + i : 0) + tile.first;
      if (given != nullptr || metric == Metric::l2) max_add = add_terms(metric, tile.codes, given, tile.count, add);
    }
    bounds.emplace_back(metric, task.rows.dim, (*task.coded)[begin + i], tile.max_norm);
    scratch.probes[i] = bounds[i].probe(best[i].threshold(), add, max_add);
  }
  const kernels::ScanI8Rows rows{tile.codes.codes, codec::packed_blocks(tile.count), codec::packed_groups(task.rows.dim), tile.codes.scale,
                                 tile.codes.error};
  const kernels::ScanI8Queries queries = task.coded->from(begin, nq, scratch.probes.data());
  const std::size_t found = task.coded_scan->scan(&queries, &rows, scratch.hits.data());
  for (std::size_t h = 0; h < found; ++h) {
    const kernels::ScanI8Hit& hit = scratch.hits[h];
    const std::uint64_t slot = tile.first + hit.row;
    if (hit.row >= tile.count || !task.allowed(begin + hit.query, slot)) continue;
    best[hit.query].offer(bounds[hit.query].around(tile.codes, hit, task.bias(begin + hit.query, slot), slot), exact[hit.query]);
  }
  return found;
}

// How many tiles from `t` on are one run of codes that some query wants rows of; `run` becomes that run, as one tile.
std::size_t coded_run(const Task& task, std::size_t t, std::size_t end, std::size_t most, Tile& run) {
  const Rows& rows = task.rows;
  run = rows.tiles[t];
  std::size_t tiles = 1;
  for (; tiles < most && t + tiles < end; ++tiles) {
    const Tile& next = rows.tiles[t + tiles];
    if (run.count != tiles * kTileRows || !(next.codes == run.codes.from(run.count, rows.dim)) || !task.any_allowed(next)) break;
    run.count += next.count;
    run.max_norm = std::max(run.max_norm, next.max_norm);
  }
  run.count = std::min<std::size_t>(run.count, rows.slots - run.first);
  return tiles;
}

// Scans tiles from `t` on by their codes; returns how many, 0 where codes are of no use there.
std::size_t scanned_by_codes(const Task& task, std::size_t begin, std::size_t nq, std::size_t t, std::size_t end, Scratch& scratch, Collector* best,
                             const std::vector<ExactScore>& exact) {
  if (!task.coded) return 0;
  if (scratch.coded_patience.resting()) return 0;
  Tile run;
  const std::size_t tiles = coded_run(task, t, end, scratch.span, run);
  if (!CodedBound::fits(run.max_norm)) return 0;
  const bool crowded = scratch.coded_patience.learn(scan_codes(task, begin, nq, run, scratch, best, exact), nq * run.count);
  // A tile at a time where the signs may take the next one.
  scratch.span = crowded || task.signs ? 1 : std::min(2 * scratch.span, max_span(task.rows.dim));
  return tiles;
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

// True where the tile was scanned by its signs.
bool scanned_signs(const Task& task, std::size_t begin, std::size_t nq, const Tile& tile, std::size_t t, Scratch& scratch, Collector* best,
                   const std::vector<ExactScore>& exact) {
  if (!task.signs || !CodedBound::fits(tile.max_norm) || scratch.sign_patience.resting()) return false;
  const std::size_t found = scan_signs(task, begin, nq, tile, task.rows.first_pass->tile(t), scratch, best, exact);
  scratch.sign_patience.learn(found, nq * tile.count);
  return true;
}

// The largest norm of a tile that nobody looked at, rounded up. In float32 where that is safe, while the rows are on their way through the
// cache: a pass of its own in float64 doubles the time of a single query.
float checked_max_norm(const Task& task, const Tile& tile) {
  const std::size_t dim = task.rows.dim;
  const double room = 1.0 + relative_error(dim) + 0x1p-20;
  double largest = 0.0;
  for (std::size_t j = 0; j < tile.count; ++j) {
    const float* const row = reinterpret_cast<const float*>(tile.rows) + j * dim;
    const float square = task.dot->pair(row, row, dim);
    // Outside these squares float32 may have lost or overflowed something; NaN fails the test too.
    const bool safe = square >= 0x1p-60f && square <= 0x1p120f;
    largest = std::max(largest, safe ? std::sqrt(static_cast<double>(square)) : checked_norm(row, dim, "vectors", tile.first + j));
  }
  return static_cast<float>(std::min<double>(largest * room, std::numeric_limits<float>::max()));
}

// Scans tiles [tile_begin, tile_end) for queries [begin, end); best[i] belongs to query begin + i.
void scan(const Task& task, std::size_t begin, std::size_t end, std::size_t tile_begin, std::size_t tile_end, Scratch& scratch, Collector* best) {
  const Rows& rows = task.rows;
  const std::size_t nq = end - begin, dim = rows.dim;
  const float* const queries = task.queries[begin].scan;
  const std::size_t q_stride = nq > 1 ? static_cast<std::size_t>(task.queries[begin + 1].scan - queries) : dim;
  std::vector<ExactScore> exact;
  for (std::size_t i = 0; i < nq; ++i) exact.push_back(exact_for(task, begin + i, scratch));
  for (std::size_t t = tile_begin, done = 1; t < tile_end; t += std::max<std::size_t>(done, 1)) {
    Tile tile = rows.tiles[t];
    tile.count = std::min<std::size_t>(tile.count, rows.slots - tile.first);
    if (rows.unchecked) tile.max_norm = checked_max_norm(task, tile);
    done = 1;
    if (!task.any_allowed(tile) || scanned_signs(task, begin, nq, tile, t, scratch, best, exact)) continue;
    done = scanned_by_codes(task, begin, nq, t, tile_end, scratch, best, exact);
    if (done != 0) continue;
    const float* values = reinterpret_cast<const float*>(tile.rows);
    if (rows.storage != Storage::float32) {
      for (std::size_t j = 0; j < tile.count; ++j) row_of(tile, rows.storage, dim, j, scratch.decoded.data() + j * dim);
      values = scratch.decoded.data();
    }
    const auto block = rows.metric == Metric::l2 ? task.l2sqr->block : task.dot->block;
    block(queries, q_stride, nq, values, dim, tile.count, dim, scratch.scores.data(), kTileRows);
    for (std::size_t i = 0; i < nq; ++i) {
      if (needs_float64(rows.metric, task.queries[begin + i].norm, tile.max_norm)) {
        offer_exactly(task, begin + i, tile, best[i], exact[i]);
      } else {
        const double sign = rows.metric == Metric::l2 ? -1.0 : 1.0;
        offer_scanned(task, begin + i, tile, scratch.scores.data() + i * kTileRows, sign, best[i], exact[i]);
      }
    }
  }
}

struct Output : Answer {
  std::size_t k;

  void write(std::size_t query, Collector& best, const ExactScore& exact) const {
    const std::vector<Candidate>& found = best.finish(exact);
    if (rescored != nullptr) rescored[query] = static_cast<std::int64_t>(best.rescored());
    for (std::size_t j = 0; j < k; ++j) {
      const bool filled = j < found.size();
      slots[query * k + j] = filled ? static_cast<std::int64_t>(found[j].slot) : -1;
      scores[query * k + j] = filled ? static_cast<float>(found[j].lower) : std::numeric_limits<float>::quiet_NaN();
    }
    counts[query] = static_cast<std::int64_t>(found.size());
  }
};

Status by_queries(const Task& task, const Output& output) {
  const std::size_t size = query_block(task.rows.dim);
  return parallel::parallel_for(task.queries.size(), task.options.threads, [&](std::size_t begin, std::size_t end, std::size_t) {
    Scratch scratch(task, std::min(size, end - begin));
    for (std::size_t first = begin; first < end; first += size) {
      const std::size_t last = std::min(first + size, end);
      std::vector<Collector> best(last - first, Collector(task.useful_k()));
      scan(task, first, last, 0, task.rows.tile_count, scratch, best.data());
      for (std::size_t i = first; i < last; ++i) output.write(i, best[i - first], exact_for(task, i, scratch));
    }
  });
}

Status by_rows(const Task& task, const Output& output) {
  const std::size_t size = query_block(task.rows.dim), tiles = task.rows.tile_count;
  const std::size_t parts = std::max<std::size_t>(1, std::min<std::size_t>(tiles, static_cast<std::size_t>(task.options.threads)));
  for (std::size_t first = 0; first < task.queries.size(); first += size) {
    const std::size_t last = std::min(first + size, task.queries.size());
    std::vector<std::vector<Collector>> best(parts, std::vector<Collector>(last - first, Collector(task.useful_k())));
    Status status = parallel::parallel_for(tiles, static_cast<int>(parts), [&](std::size_t begin, std::size_t end, std::size_t part) {
      Scratch scratch(task, last - first);
      scan(task, first, last, begin, end, scratch, best[part].data());
    });
    if (!status.ok()) return status;
    status = parallel::parallel_for(last - first, task.options.threads, [&](std::size_t begin, std::size_t end, std::size_t) {
      Scratch scratch(task, 0);
      for (std::size_t i = begin; i < end; ++i) {
        const ExactScore exact = exact_for(task, first + i, scratch);
        for (std::size_t part = 1; part < parts; ++part) best[0][i].absorb(best[part][i], exact);
        output.write(first + i, best[0][i], exact);
      }
    });
    if (!status.ok()) return status;
  }
  return Status::good();
}

}  // namespace

const float* row_of(const Tile& tile, Storage storage, std::size_t dim, std::size_t index, float* place) {
  const unsigned char* const row = tile.rows + index * codec::row_bytes(storage, dim);
  if (storage == Storage::float32) return reinterpret_cast<const float*>(row);
  if (storage == Storage::int8) {
    codec::unpack_row(tile.codes, index, dim, place);
  } else {
    codec::decode_row(storage, row, dim, place);
  }
  return place;
}

void search(const Rows& rows, MatrixView<float> queries, const Options& options, const Answer& answer) {
  Options fitting = options;
  const std::size_t products = queries.rows * rows.slots * rows.dim;
  fitting.threads = static_cast<int>(std::min<std::size_t>(static_cast<std::size_t>(std::max(1, options.threads)), 1 + products / kProductsPerThread));
  const Task task(rows, queries, fitting);
  const Output output{answer, options.k};
  const std::size_t threads = static_cast<std::size_t>(fitting.threads);
  const bool many = threads == 1 || queries.rows >= threads * kQueriesPerThread;
  raise_if_bad(many ? by_queries(task, output) : by_rows(task, output));
}

}  // namespace nf::score
