#include "score/scan.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <deque>
#include <limits>
#include <vector>

#include "codec/rows.h"
#include "parallel/pool.h"
#include "score/coarse.h"
#include "score/door.h"
#include "score/exact.h"
#include "score/few.h"
#include "score/gather.h"
#include "score/task.h"

namespace nf::score {
namespace {

// Queries that are scanned together: what a scan reads of them for every row stays in the second-level cache beside the rows' stream, and the
// rows come from memory once for all of them. AMX needs hundreds: with 84, it waits for memory two thirds of the time.
constexpr std::size_t kQueryBlockBytes = 192 * 1024;
constexpr std::size_t kMaxQueryBlock = 512, kQueryUnit = 32;
// The same for scans in float32: 84 at 384 dimensions; a multiple of 12 suits 3- and 4-query kernels.
constexpr std::size_t kFloatBlockBytes = 128 * 1024, kFloatUnit = 12, kMaxFloatBlock = 96;
// Threads with at least so many queries each take queries apart: one threshold then sees all rows, so half as many pass it as when two threads
// see half of them each. Fewer queries are scanned by all threads together, which take rows apart, a run of tiles at a time as each gets
// through, so that a core that others keep busy holds nobody up. Of few tiles (for each thread), runs are short and queries go apart earlier.
constexpr std::size_t kTilesPerThread = 64, kRunsPerThread = 32, kQueriesPerThread = 128, kFewTilesQueries = 32;
// Products below which a further thread costs more to wake (some 10 us) than it saves at 10^10 a second.
constexpr std::size_t kProductsPerThread = 1 << 18;
// Scores looked at together: a run without any candidate is passed by with vector compares.
constexpr std::size_t kRun = 16;

// Near-equal blocks of at most that many queries, so that none is left over that reads all rows for a few.
std::size_t query_block(const Task& task, std::size_t queries) {
  const std::size_t dim = std::max<std::size_t>(task.rows.dim, 1);
  const std::size_t bytes = task.coded ? dim * (task.coded_scan->code_max == kernels::kWideCodes ? sizeof(std::int16_t) : sizeof(std::int8_t)) : 0;
  const std::size_t most = task.coded ? std::clamp<std::size_t>(kQueryBlockBytes / bytes / kQueryUnit * kQueryUnit, kQueryUnit, kMaxQueryBlock)
                                      : std::clamp<std::size_t>(kFloatBlockBytes / (dim * sizeof(float)) / kFloatUnit * kFloatUnit, kFloatUnit, kMaxFloatBlock);
  const std::size_t blocks = std::max<std::size_t>(1, (queries + most - 1) / most), unit = task.coded ? kQueryUnit : kFloatUnit;
  return std::min(most, ((queries + blocks - 1) / blocks + unit - 1) / unit * unit);
}

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

AskFor ask_for(const Task& task) {
  return [&task](std::uint64_t slot) {
    const Tile& tile = tile_of(task.rows, slot);
    const std::size_t bytes = codec::row_bytes(task.rows.storage, task.rows.dim);
    if (bytes != 0) prefetch_lines(tile.rows + (slot - tile.first) * bytes, bytes);
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
  const auto bound_of = task.halves != nullptr ? Bound::of_halves : Bound::of;
  const Bound bound = bound_of(task.rows.metric, task.rows.dim, task.queries[index], tile.max_norm);
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

bool any_needs_float64(const Task& task, std::size_t begin, std::size_t nq, const Tile& tile) {
  for (std::size_t i = 0; i < nq; ++i) {
    if (needs_float64(task.rows.metric, task.queries[begin + i].norm, tile.max_norm)) return true;
  }
  return false;
}

// Scores of all the tile's rows, without codes, to scratch.scores. `packed`: the queries are the last call's.
void score_all(const Task& task, const float* queries, std::size_t stride, std::size_t nq, const Tile& tile, bool packed, Scratch& scratch) {
  const Rows& rows = task.rows;
  const std::size_t dim = rows.dim;
  if (task.halves != nullptr) {
    if (!packed) {
      const std::size_t size = codec::halves_size(nq, dim);
      if (scratch.high.size() < size) scratch.high = AlignedBuffer<std::uint16_t>(size), scratch.low = AlignedBuffer<std::uint16_t>(size);
      codec::pack_halves(queries, stride, nq, dim, scratch.high.data(), scratch.low.data());
    }
    task.halves->block(scratch.high.data(), scratch.low.data(), nq, tile.rows, tile.count, dim, scratch.scores.data(), kTileRows);
    return;
  }
  const float* values = reinterpret_cast<const float*>(tile.rows);
  if (rows.storage != Storage::float32) {
    for (std::size_t j = 0; j < tile.count; ++j) row_of(tile, rows.storage, dim, j, scratch.decoded.data() + j * dim);
    values = scratch.decoded.data();
  }
  const auto block = rows.metric == Metric::l2 ? task.l2sqr->block : task.dot->block;
  block(queries, stride, nq, values, dim, tile.count, dim, scratch.scores.data(), kTileRows);
}

// The tiles of a search, handed out in runs to whoever asks next; threads may share one.
class Runs {
 public:
  Runs(std::size_t tiles, std::size_t size) : tiles_(tiles), size_(std::max<std::size_t>(size, 1)) {}
  bool next(std::size_t& begin, std::size_t& end) {
    begin = next_.fetch_add(size_, std::memory_order_relaxed);
    end = std::min(begin + size_, tiles_);
    return begin < tiles_;
  }
  bool none_left() const { return next_.load(std::memory_order_relaxed) >= tiles_; }

 private:
  const std::size_t tiles_, size_;
  std::atomic<std::size_t> next_{0};
};

// Scans the runs of tiles that this thread gets for queries [begin, end); best[i] belongs to query begin + i.
void scan(const Task& task, std::size_t begin, std::size_t end, Runs& runs, Scratch& scratch, Collector* best) {
  const Rows& rows = task.rows;
  const std::size_t nq = end - begin, dim = rows.dim;
  const float* const queries = task.queries[begin].scan;
  const std::size_t q_stride = nq > 1 ? static_cast<std::size_t>(task.queries[begin + 1].scan - queries) : dim;
  std::vector<ExactScore> exact;
  for (std::size_t i = 0; i < nq; ++i) exact.push_back(exact_for(task, begin + i, scratch));
  bool packed = false;
  scratch.probes.forget();
  scratch.span = 1;
  for (std::size_t first, last; runs.next(first, last);) {
    for (std::size_t t = first, done = 1; t < last; t += std::max<std::size_t>(done, 1)) {
      Tile tile = rows.tile(t);
      if (rows.unchecked) tile.max_norm = checked_max_norm(task, tile);
      done = 1;
      const Left left = left_of(task, begin, nq, tile);
      if (left == Left::none) continue;
      if (left == Left::few && !any_needs_float64(task, begin, nq, tile)) {
        scan_few(task, begin, nq, tile, scratch, best, exact);
        continue;
      }
      if (scanned_by_signs(task, begin, nq, tile, t, scratch, best, exact)) continue;
      done = scanned_by_codes(task, begin, nq, t, last, scratch, best, exact);
      if (done != 0) continue;
      score_all(task, queries, q_stride, nq, tile, packed, scratch);
      packed = true;
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
  offer_few(task, begin, nq, scratch, best, exact.data());
}

struct Output : Answer {
  std::size_t k;

  void write(std::size_t query, Collector& best, const ExactScore& exact, const AskFor& ask) const {
    const std::vector<Candidate>& found = best.finish(exact, ask);
    if (rescored != nullptr) rescored[query] = static_cast<std::int64_t>(best.rescored());
    for (std::size_t j = 0; j < k; ++j) {
      const bool filled = j < found.size();
      slots[query * k + j] = filled ? static_cast<std::int64_t>(found[j].slot) : -1;
      scores[query * k + j] = filled ? static_cast<float>(found[j].lower) : std::numeric_limits<float>::quiet_NaN();
    }
    counts[query] = static_cast<std::int64_t>(found.size());
  }
};

// Some queries with the rows that are left to scan for them. Threads that are through with their own queries help others with theirs.
struct Batch {
  std::size_t first, last;  // queries
  Runs runs;
  std::vector<SharedThreshold> shared;
  std::vector<std::vector<Collector>> best;  // of each thread that has scanned rows for them

  Batch(std::size_t first_, std::size_t last_, std::size_t tiles, std::size_t parts)
      : first(first_), last(last_), runs(tiles, parts == 1 ? tiles : tiles / (parts * kRunsPerThread)), shared(last - first), best(parts) {}

  std::size_t size() const { return last - first; }

  void scan_for(const Task& task, std::size_t part, Scratch& scratch) {
    if (runs.none_left() && part != 0) return;  // the first thread's are there even where there are no rows at all
    best[part].assign(size(), Collector(task.useful_k()));
    scratch.shared = best.size() == 1 ? nullptr : shared.data();
    scan(task, first, last, runs, scratch, best[part].data());
  }

  // What all threads found for query `first + i`.
  void write(const Task& task, std::size_t i, Scratch& scratch, const Output& output) {
    const ExactScore exact = exact_for(task, first + i, scratch);
    Collector& all = best[0][i];
    for (std::size_t part = 1; part < best.size(); ++part) {
      if (!best[part].empty()) all.absorb(best[part][i]);
    }
    output.write(first + i, all, exact, ask_for(task));
  }
};

// As many batches at a time as there are threads: each begins with one of its own and goes on with what the others have left.
Status by_batches(const Task& task, std::size_t size, std::size_t parts, const Output& output) {
  const std::size_t count = task.queries.size(), wave = size * parts;
  const int threads = static_cast<int>(parts);
  for (std::size_t begin = 0; begin < count; begin += wave) {
    std::deque<Batch> batches;
    for (std::size_t first = begin; first < std::min(begin + wave, count); first += size) {
      batches.emplace_back(first, std::min(first + size, count), task.rows.tile_count, parts);
    }
    Status status = parallel::parallel_for(parts, threads, [&](std::size_t, std::size_t, std::size_t part) {
      Scratch scratch(task, batches[0].size());
      for (std::size_t b = 0; b < batches.size(); ++b) batches[(part + b) % batches.size()].scan_for(task, part, scratch);
    });
    if (!status.ok()) return status;
    status = parallel::parallel_for(std::min(wave, count - begin), threads, [&](std::size_t from, std::size_t to, std::size_t) {
      Scratch scratch(task, 0);
      for (std::size_t i = from; i < to; ++i) batches[i / size].write(task, i % size, scratch, output);
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
  const std::size_t parts = std::max<std::size_t>(1, std::min(rows.tile_count, static_cast<std::size_t>(fitting.threads)));
  const std::size_t least = rows.tile_count < parts * kTilesPerThread ? kFewTilesQueries : kQueriesPerThread;
  const std::size_t each = (queries.rows + parts - 1) / parts;
  raise_if_bad(by_batches(task, query_block(task, each < least ? queries.rows : each), parts, output));
}

}  // namespace nf::score
