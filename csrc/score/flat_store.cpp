#include "score/flat_store.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <shared_mutex>
#include <string>

#include "base/rounding.h"
#include "codec/rows.h"
#include "parallel/pool.h"
#include "score/door.h"
#include "score/gather.h"

namespace nf::score {
namespace {

using Reading = std::shared_lock<parallel::RwLock>;
using Writing = std::unique_lock<parallel::RwLock>;

// An add of at least this many rows becomes a segment as it is; smaller ones are copied into a growing segment.
constexpr std::size_t kOwnSegmentRows = 4096;
constexpr std::size_t kMinSegmentRows = 64;

std::size_t checked_dim(std::size_t dim) {
  if (dim < 1 || dim > kMaxDim) throw InputError("dim: " + std::to_string(dim) + " given, 1 to " + std::to_string(kMaxDim) + " expected");
  return dim;
}

}  // namespace

FlatStore::FlatStore(std::size_t dim, Metric metric, Storage storage)
    : dim_(checked_dim(dim)), metric_(metric), storage_(storage), row_bytes_(codec::row_bytes(storage, dim)) {}

FlatStore::FlatStore(std::shared_ptr<storage::MappedFile> file, std::size_t dim, Metric metric, Storage storage, std::size_t count)
    : FlatStore(dim, metric, storage) {
  file_ = std::move(file);
  const storage::Bytes rows = file_->section("rows");
  if (row_bytes_ == 0 ? rows.size != 0 : rows.size % row_bytes_ != 0 || rows.size / row_bytes_ != count) {
    throw FormatError(file_->path() + ": section rows has " + std::to_string(rows.size) + " bytes, " + std::to_string(count) + " rows of " +
                      std::to_string(row_bytes_) + " bytes expected: the file is damaged");
  }
  const std::size_t tiles = (count + kTileRows - 1) / kTileRows;
  const float* norms = file_->section("tile_norms").as<float>(tiles, "tile_norms");
  tiles_.reserve(tiles);
  for (std::size_t t = 0; t < tiles; ++t) {
    if (!(norms[t] >= 0.0f && norms[t] <= std::numeric_limits<float>::max())) {
      throw FormatError(file_->path() + ": section tile_norms holds a value that is no norm: the file is damaged");
    }
    const std::size_t first = t * kTileRows;
    tiles_.push_back(Tile{rows.data + first * row_bytes_, first, std::min(kTileRows, count - first), norms[t], {}});
  }
  const std::size_t places = codec::packed_blocks(count) * codec::kPackRows;
  const codec::PackedView codes{file_->section("codes").as<std::int8_t>(codec::packed_bytes(count, dim), "codes"),
                                file_->section("code_scales").as<float>(places, "code_scales"),
                                file_->section("code_errors").as<float>(places, "code_errors"),
                                file_->section("code_squares").as<float>(places, "code_squares")};
  for (Tile& tile : tiles_) tile.codes = codes.from(tile.first, dim);
  segments_.push_back(Segment{{}, {}, 0, count});
  live_.assign(count, 1);
}

std::size_t FlatStore::slots() const {
  const Reading reading(lock_);
  return live_.size();
}

std::size_t FlatStore::live() const {
  const Reading reading(lock_);
  return live_.size() - dead_count_;
}

FlatStore::Encoded FlatStore::room_for(std::size_t count) const {
  return {AlignedBuffer<unsigned char>(count * row_bytes_), std::vector<float>(count), codec::PackedRows(count, dim_)};
}

FlatStore::Encoded FlatStore::encode(MatrixView<float> rows, int threads) const {
  Encoded encoded = room_for(rows.rows);
  raise_if_bad(parallel::parallel_for(rows.rows, threads, [&](std::size_t begin, std::size_t end, std::size_t) {
    AlignedBuffer<float> place(dim_);
    for (std::size_t i = begin; i < end; ++i) {
      const float* row = rows.row(i);
      const double norm = checked_norm(row, dim_, "vectors", i);
      unsigned char* const target = encoded.rows.data() + i * row_bytes_;
      if (metric_ == Metric::cosine) {
        normalize(row, dim_, norm, place.data());
        row = place.data();
      }
      codec::encode_row(storage_, row, dim_, target);
      // From here on the row is what is stored of it.
      if (storage_ == Storage::bfloat16) codec::decode_row(storage_, target, dim_, place.data());
      const double square = encoded.codes.encode(i, storage_ == Storage::bfloat16 ? place.data() : row, storage_ != Storage::int8);
      encoded.norms[i] = std::min(rounded_up(std::sqrt(square)), std::numeric_limits<float>::max());
    }
  }));
  return encoded;
}

void FlatStore::append(MatrixView<float> rows, const std::vector<std::uint64_t>& dead, int threads) {
  Encoded encoded = encode(rows, threads);  // the long part, before the lock
  const Writing writing(lock_);
  for (const std::uint64_t slot : dead) {
    if (slot >= live_.size()) throw InputError("slot " + std::to_string(slot) + " does not exist");
  }
  reserve_for(rows.rows);  // what may run out of memory, before anything changes
  if (rows.rows >= kOwnSegmentRows) {
    adopt(std::move(encoded), rows.rows);
  } else {
    place(encoded, rows.rows);
  }
  live_.resize(live_.size() + rows.rows, 1);
  for (const std::uint64_t slot : dead) {
    dead_count_ += live_[slot];
    live_[slot] = 0;
  }
}

void FlatStore::reserve_for(std::size_t more) {
  const auto grow = [](auto& vector, std::size_t extra) {
    const std::size_t needed = vector.size() + extra;
    if (needed > vector.capacity()) vector.reserve(std::max(needed, vector.capacity() + vector.capacity() / 2));
  };
  grow(live_, more);
  grow(tiles_, more / kTileRows + 3);
  grow(segments_, 2);
}

void FlatStore::adopt(Encoded encoded, std::size_t count) {
  segments_.push_back(Segment{std::move(encoded.rows), std::move(encoded.codes), count, 0});
  extend_tiles(segments_.back(), encoded.norms.data(), count);
  segments_.back().count = count;
}

void FlatStore::place(const Encoded& encoded, std::size_t count) {
  const std::size_t room = segments_.empty() ? 0 : segments_.back().capacity - std::min(segments_.back().capacity, segments_.back().count);
  const std::size_t first = std::min(count, room), rest = count - first;
  Segment fresh;
  if (rest != 0) {
    fresh.capacity = std::max(rest, std::clamp(live_.size() / 2, kMinSegmentRows, kOwnSegmentRows));
    Encoded room = room_for(fresh.capacity);
    fresh.owned = std::move(room.rows);
    fresh.codes = std::move(room.codes);
  }
  const auto fill = [&](Segment& segment, std::size_t from, std::size_t rows_in) {
    if (row_bytes_ != 0) std::memcpy(segment.owned.data() + segment.count * row_bytes_, encoded.rows.data() + from * row_bytes_, rows_in * row_bytes_);
    for (std::size_t i = 0; i < rows_in; ++i) segment.codes.copy(segment.count + i, encoded.codes.view(), from + i);
    extend_tiles(segment, encoded.norms.data() + from, rows_in);
    segment.count += rows_in;
  };
  if (first != 0) fill(segments_.back(), 0, first);
  if (rest != 0) {
    segments_.push_back(std::move(fresh));
    fill(segments_.back(), first, rest);
  }
}

// Enters rows that were put behind the segment's `count`; a tile begins every kTileRows rows of a segment and never crosses segments.
void FlatStore::extend_tiles(const Segment& segment, const float* norms, std::size_t count) {
  std::uint64_t slot = tiles_.empty() ? 0 : tiles_.back().first + tiles_.back().count;
  for (std::size_t i = 0; i < count; ++i, ++slot) {
    const std::size_t place = segment.count + i;
    if (place % kTileRows == 0) {
      tiles_.push_back(Tile{segment.owned.data() + place * row_bytes_, slot, 0, 0.0f, segment.codes.view().from(place, dim_)});
    }
    Tile& tile = tiles_.back();
    ++tile.count;
    tile.max_norm = std::max(tile.max_norm, norms[i]);
  }
}

void FlatStore::search(MatrixView<float> queries, const Options& options, std::size_t limit, const Answer& answer) const {
  const Reading reading(lock_);
  if (limit > live_.size()) throw InputError("limit beyond the last slot");
  Rows rows = rows_below(limit);
  if (options.guarantee < 1.0) rows.first_pass = first_pass(options.threads);
  score::search(rows, queries, options, answer);
}

void FlatStore::score(MatrixView<float> queries, MatrixView<std::int64_t> slots, int threads, float* out) const {
  const Reading reading(lock_);
  gather(rows_below(live_.size()), Chosen{queries, slots, live_.size(), threads}, out);
}

Rows FlatStore::rows_below(std::size_t limit) const {
  Rows rows;
  rows.dim = dim_;
  rows.metric = metric_;
  rows.storage = storage_;
  rows.tiles = tiles_.data();
  rows.tile_count = static_cast<std::size_t>(
      std::lower_bound(tiles_.begin(), tiles_.end(), limit, [](const Tile& tile, std::size_t end) { return tile.first < end; }) - tiles_.begin());
  rows.slots = limit;
  rows.live = dead_count_ == 0 ? nullptr : live_.data();
  return rows;
}

// Called under the shared lock, so the rows stay as they are; whoever comes out of here finds all of them coded, and nothing is written
// until an append, which takes the lock alone, has added more.
const FirstPass* FlatStore::first_pass(int threads) const {
  if (!FirstPass::fits(dim_)) return nullptr;
  const std::lock_guard<std::mutex> coding(coding_);
  if (first_pass_ == nullptr) first_pass_ = std::make_unique<FirstPass>(dim_, metric_, storage_, rotation_, threads);
  first_pass_->extend(tiles_, threads);
  return first_pass_.get();
}

void FlatStore::set_rotation(std::uint64_t seed) {
  const Writing writing(lock_);
  rotation_ = seed;
  first_pass_.reset();
}

void FlatStore::get(const std::vector<std::uint64_t>& slots, float* out) const {
  const Reading reading(lock_);
  for (std::size_t i = 0; i < slots.size(); ++i) {
    if (slots[i] >= live_.size()) throw InputError("slot " + std::to_string(slots[i]) + " does not exist");
    const auto after = std::upper_bound(tiles_.begin(), tiles_.end(), slots[i], [](std::uint64_t s, const Tile& tile) { return s < tile.first; });
    float* const place = out + i * dim_;
    const float* const row = row_of(*(after - 1), storage_, dim_, slots[i] - (after - 1)->first, place);
    if (row != place) std::memcpy(place, row, dim_ * sizeof(float));
  }
}

std::vector<std::uint64_t> FlatStore::live_slots() const {
  const Reading reading(lock_);
  std::vector<std::uint64_t> slots;
  slots.reserve(live_.size() - dead_count_);
  for (std::size_t slot = 0; slot < live_.size(); ++slot) {
    if (live_[slot] != 0) slots.push_back(slot);
  }
  return slots;
}

std::unique_ptr<FlatStore> FlatStore::compacted() const {
  const Reading reading(lock_);
  auto store = std::make_unique<FlatStore>(dim_, metric_, storage_);
  const std::size_t count = live_.size() - dead_count_;
  Encoded kept = room_for(count);
  std::size_t at = 0;
  for (const Tile& tile : tiles_) {
    for (std::size_t j = 0; j < tile.count; ++j) {
      if (live_[tile.first + j] == 0) continue;
      if (row_bytes_ != 0) std::memcpy(kept.rows.data() + at * row_bytes_, tile.rows + j * row_bytes_, row_bytes_);
      kept.codes.copy(at, tile.codes, j);
      kept.norms[at++] = tile.max_norm;  // an upper bound is all that a tile's norm has to be
    }
  }
  if (count != 0) store->adopt(std::move(kept), count);
  store->live_.assign(count, 1);
  return store;
}

void FlatStore::save(storage::Writer& writer, const std::string& path) const {
  const Reading reading(lock_);
  std::vector<float> norms;
  const std::size_t count = live_.size() - dead_count_;
  // A second copy of the codes, a quarter of float32 rows: the file has no gaps where rows were deleted.
  codec::PackedRows codes(count, dim_);
  std::size_t kept = 0;
  writer.section("rows");
  for (const Tile& tile : tiles_) {
    for (std::size_t j = 0; j < tile.count; ++j) {
      if (live_[tile.first + j] == 0) continue;
      codes.copy(kept, tile.codes, j);
      if (kept++ % kTileRows == 0) norms.push_back(0.0f);
      norms.back() = std::max(norms.back(), tile.max_norm);
    }
    for (std::size_t j = 0; j < tile.count;) {
      std::size_t end = j;
      while (end < tile.count && live_[tile.first + end] != 0) ++end;
      if (end > j) writer.piece(tile.rows + j * row_bytes_, (end - j) * row_bytes_);
      j = end + 1;
    }
  }
  writer.section("tile_norms", norms.data(), norms.size() * sizeof(float));
  const codec::PackedView view = codes.view();
  const std::size_t places = codec::packed_blocks(count) * codec::kPackRows * sizeof(float);
  writer.section("codes", view.codes, codec::packed_bytes(count, dim_));
  writer.section("code_scales", view.scale, places);
  writer.section("code_errors", view.error, places);
  writer.section("code_squares", view.square, places);
  writer.commit(path);
}

}  // namespace nf::score
