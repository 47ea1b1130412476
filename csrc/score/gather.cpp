#include "score/gather.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/aligned.h"
#include "base/status.h"
#include "codec/rows.h"
#include "parallel/pool.h"
#include "score/door.h"
#include "score/exact.h"

namespace nf::score {
namespace {

// Float64 products below which a further thread costs more to wake (some 10 us) than it saves at 3 * 10^9 a second.
constexpr std::size_t kProductsPerThread = 1 << 16;
// Rows asked for ahead of the one at work, and lines of each: of 100,000 random rows of 384 float32 values (24 lines) a pair took 1.5 us
// without asking, 1.2 us asking for 16 lines, 0.6 us for all of them; a row of int8 codes has its bytes in 96 lines.
constexpr std::size_t kAhead = 2;
constexpr std::size_t kPrefetchLines = 96;
constexpr std::size_t kLine = 64;

void check_slots(const MatrixView<std::int64_t>& slots, std::uint64_t count) {
  for (std::size_t i = 0; i < slots.rows; ++i) {
    for (std::size_t j = 0; j < slots.cols; ++j) {
      const std::int64_t slot = slots.row(i)[j];
      if (slot == -1 || (slot >= 0 && static_cast<std::uint64_t>(slot) < count)) continue;
      throw InputError("candidates: row " + std::to_string(i) + ", place " + std::to_string(j) + " is " + std::to_string(slot) +
                       ", a position below " + std::to_string(count) + ", or -1 for none, expected");
    }
  }
}

class StoredRows : public RowSource {
 public:
  explicit StoredRows(const Rows& rows) : rows_(rows) {}

  const float* row(std::uint64_t slot, float* place) const override {
    const Tile& tile = tile_of(slot);
    return row_of(tile, rows_.storage, rows_.dim, slot - tile.first, place);
  }

  void prefetch(std::uint64_t slot) const override {
    const Tile& tile = tile_of(slot);
    const std::size_t index = slot - tile.first;
    if (rows_.storage == Storage::int8) {
      // A row has four bytes in every line of its block.
      const std::size_t block = codec::packed_groups(rows_.dim) * kLine;
      prefetch_lines(tile.codes.codes + index / codec::kPackRows * block, block);
    } else {
      const std::size_t bytes = codec::row_bytes(rows_.storage, rows_.dim);
      prefetch_lines(tile.rows + index * bytes, bytes);
    }
  }

 private:
  // Tiles are full except where an add ended, so the tile sought is the one counted off, or stands behind it.
  const Tile& tile_of(std::uint64_t slot) const {
    const Tile* const end = rows_.tiles + rows_.tile_count;
    const Tile* const counted = rows_.tiles + slot / kTileRows;
    if (slot - counted->first < counted->count) return *counted;
    return *(std::upper_bound(counted, end, slot, [](std::uint64_t s, const Tile& each) { return s < each.first; }) - 1);
  }

  const Rows& rows_;
};

class BorrowedRows : public RowSource {
 public:
  BorrowedRows(Metric metric, MatrixView<float> rows) : metric_(metric), rows_(rows) {}

  const float* row(std::uint64_t slot, float* place) const override {
    const float* const given = rows_.row(slot);
    const double norm = checked_norm(given, rows_.cols, "vectors", slot);
    if (metric_ != Metric::cosine) return given;
    normalize(given, rows_.cols, norm, place);
    return place;
  }

  void prefetch(std::uint64_t slot) const override { prefetch_lines(rows_.row(slot), rows_.cols * sizeof(float)); }

 private:
  Metric metric_;
  MatrixView<float> rows_;
};

}  // namespace

void prefetch_lines(const void* row, std::size_t bytes) {
  const char* const start = static_cast<const char*>(row);
  const std::size_t end = std::min(bytes, kPrefetchLines * kLine);
  for (std::size_t at = 0; at < end; at += kLine) __builtin_prefetch(start + at);
}

void gather(Metric metric, const RowSource& rows, const Chosen& chosen, float* out) {
  const std::size_t dim = chosen.queries.cols, m = chosen.slots.cols, pairs = chosen.queries.rows * m;
  std::vector<Query> queries(chosen.queries.rows);
  for (std::size_t i = 0; i < queries.size(); ++i) {
    const float* const raw = chosen.queries.row(i);
    queries[i] = Query{raw, raw, checked_norm(raw, dim, "queries", i)};
  }
  check_slots(chosen.slots, chosen.count);
  const std::size_t useful = 1 + pairs * std::max<std::size_t>(dim, 1) / kProductsPerThread;
  const int threads = static_cast<int>(std::min<std::size_t>(static_cast<std::size_t>(std::max(1, chosen.threads)), useful));
  raise_if_bad(parallel::parallel_for(pairs, threads, [&](std::size_t begin, std::size_t end, std::size_t) {
    AlignedBuffer<float> place(dim);
    for (std::size_t pair = begin; pair < end; ++pair) {
      if (pair + kAhead < end) {
        const std::int64_t soon = chosen.slots.data[pair + kAhead];
        if (soon >= 0) rows.prefetch(static_cast<std::uint64_t>(soon));
      }
      const std::int64_t slot = chosen.slots.data[pair];
      if (slot < 0) {
        out[pair] = std::numeric_limits<float>::quiet_NaN();
        continue;
      }
      const double score = exact_score(metric, queries[pair / m], rows.row(static_cast<std::uint64_t>(slot), place.data()), dim);
      // NaN comes of a damaged file opened without verification only, and ranks last, as in a search.
      out[pair] = static_cast<float>(std::isnan(score) ? -std::numeric_limits<double>::infinity() : score);
    }
  }));
}

void gather(const Rows& rows, const Chosen& chosen, float* out) { gather(rows.metric, StoredRows(rows), chosen, out); }

void gather_borrowed(Metric metric, MatrixView<float> rows, const Chosen& chosen, float* out) { gather(metric, BorrowedRows(metric, rows), chosen, out); }

}  // namespace nf::score
