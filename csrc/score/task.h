// What one search knows (shared by its threads) and what each thread needs for it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "base/aligned.h"
#include "codec/halves.h"
#include "kernels/dispatch.h"
#include "parallel/pool.h"
#include "score/coded.h"
#include "score/coded_probes.h"
#include "score/door.h"
#include "score/patience.h"
#include "score/plan.h"
#include "score/scan.h"
#include "score/signs.h"

namespace nf::score {

// Neighbouring tiles are scanned by their codes in one go, so that what a query needs before each scan costs little beside it: as many bytes
// of codes as stay in a 512 KiB second-level cache while query after query passes over them. One tile at first and twice as many each time,
// because a query's threshold moves only between scans.
constexpr std::size_t kSpanBytes = 192 * 1024;
constexpr std::size_t kMaxSpan = 16;

inline std::size_t max_span(std::size_t dim) { return std::clamp<std::size_t>(kSpanBytes / (std::max<std::size_t>(dim, 1) * kTileRows), 1, kMaxSpan); }

// Everything the threads share, read-only.
struct Task {
  const Rows& rows;
  const Options& options;
  std::vector<Query> queries;
  AlignedBuffer<float> unit_queries;  // cosine only
  const kernels::DotF32* dot;
  const kernels::L2SqrF32* l2sqr;
  const kernels::DotBf16* halves;  // multiplies bfloat16 rows as they are; null where float32 is to do it
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
        // l2 scores small differences of long vectors, which |q|^2 + |x|^2 - 2 q . x would lose to the rounding of each.
        halves(rows.storage == Storage::bfloat16 && rows.metric != Metric::l2 ? kernels::dot_bf16() : nullptr),
        coded_scan(&kernels::scan_i8()),
        sign_scan(&kernels::scan_1bit()) {
    const bool unit = rows.metric == Metric::cosine;
    if (unit) unit_queries = AlignedBuffer<float>(given.rows * rows.dim);
    raise_if_bad(parallel::parallel_for(given.rows, options.threads, [&](std::size_t begin, std::size_t end, std::size_t) {
      for (std::size_t i = begin; i < end; ++i) prepare(given.row(i), i);
    }));
    if (rows.tile_count != 0 && rows.tiles[0].codes.codes != nullptr) {
      coded.emplace(rows.metric, rows.dim, queries, *coded_scan, options.threads);
      if (!coded->usable()) coded.reset();
    }
    if (rows.first_pass != nullptr && coded) {
      signs.emplace(*rows.first_pass, rows.metric, rows.dim, queries, options.guarantee, useful_k());
      if (!signs->usable()) signs.reset();
    }
  }

  void prepare(const float* query, std::size_t i) {
    const double norm = checked_norm(query, rows.dim, "queries", i);
    float* const place = unit_queries.data() == nullptr ? nullptr : unit_queries.data() + i * rows.dim;
    if (place != nullptr) normalize(query, rows.dim, norm, place);
    queries[i] = Query{query, place != nullptr ? place : query, norm};
  }

  // No query can have more answers than there are slots: a huge k must not size anything.
  std::size_t useful_k() const { return std::max<std::size_t>(1, std::min<std::size_t>(options.k, rows.slots)); }

  bool filtered() const { return rows.live != nullptr || options.mask.data != nullptr; }

  bool allowed(std::size_t query, std::uint64_t slot) const {
    if (rows.live != nullptr && rows.live[slot] == 0) return false;
    const MatrixView<std::uint8_t>& mask = options.mask;
    return mask.data == nullptr || mask.row(mask.rows == 1 ? 0 : query)[slot] != 0;
  }

  double bias(std::size_t query, std::uint64_t slot) const {
    const MatrixView<float>& bias = options.bias;
    return bias.data == nullptr ? 0.0 : static_cast<double>(bias.row(bias.rows == 1 ? 0 : query)[slot]);
  }

  // The rows of the tile that a query may have: their number, and their places in the tile in `places`. Without branches, because a filter's
  // rows lie anywhere: 128 rows take some 60 ns.
  std::size_t allowed_rows(std::size_t query, const Tile& tile, std::uint8_t* places) const {
    static_assert(kTileRows <= 256, "places are bytes");
    const MatrixView<std::uint8_t>& mask = options.mask;
    const std::uint8_t* const wanted = mask.data == nullptr ? nullptr : mask.row(mask.rows == 1 ? 0 : query) + tile.first;
    const std::uint8_t* const alive = rows.live == nullptr ? nullptr : rows.live + tile.first;
    std::size_t count = 0;
    for (std::size_t j = 0; j < tile.count; ++j) {
      places[count] = static_cast<std::uint8_t>(j);
      count += (wanted == nullptr || wanted[j] != 0) && (alive == nullptr || alive[j] != 0) ? 1 : 0;
    }
    return count;
  }
};

// Rows brought together from tiles of which filters and deletes leave few (score/few.h), until there are enough to score.
struct FewRows {
  static constexpr std::size_t kMost = 32;
  const float* row[kMost];
  std::uint64_t slot[kMost];
  std::size_t count = 0;
  float max_norm = 0.0f;
  AlignedBuffer<float> dense;  // for rows that are decoded, and for products with many queries
};

// What a query's threads know of its threshold: each goes on with the highest, so more threads do not let more through.
class SharedThreshold {
 public:
  void exchange(Collector& best) {
    double known = value_.load(std::memory_order_relaxed);
    while (best.threshold() > known && !value_.compare_exchange_weak(known, best.threshold(), std::memory_order_relaxed)) {
    }
    best.raise_to(known);
  }

 private:
  std::atomic<double> value_{-std::numeric_limits<double>::infinity()};
};

// One thread's memory.
struct Scratch {
  AlignedBuffer<float> scores;
  AlignedBuffer<float> decoded;  // a tile's rows, or one row while exact scores are computed
  AlignedBuffer<std::uint16_t> high, low;  // the queries for Task::halves, once a tile needs them
  AlignedBuffer<float> add;      // row terms, one line for each query that has its own
  CodedProbes probes;
  AlignedBuffer<kernels::ScanI8Hit> hits;
  std::vector<kernels::Scan1BitQuery> sign_probes;
  std::vector<kernels::Scan1BitHit> sign_hits;
  FewRows few;
  SharedThreshold* shared = nullptr;  // one for each query, where threads take rows apart
  Patience coded_patience, sign_patience;
  std::size_t span = 1;  // tiles of the next scan by codes

  Scratch(const Task& task, std::size_t queries)
      : scores(queries * kTileRows),
        decoded(task.rows.storage == Storage::float32 ? 0 : (kTileRows + 1) * task.rows.dim),
        add(max_span(task.rows.dim) * kTileRows * (task.options.bias.rows > 1 ? queries : 1)),
        hits(task.coded ? queries * max_span(task.rows.dim) * kTileRows : 0),
        sign_probes(task.signs ? queries : 0),
        sign_hits(task.signs ? queries * kTileRows : 0) {
    add.zero();
    if (task.filtered()) few.dense = AlignedBuffer<float>(FewRows::kMost * task.rows.dim);
  }
};

}  // namespace nf::score
