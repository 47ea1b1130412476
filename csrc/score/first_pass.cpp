#include "score/first_pass.h"

#include <algorithm>
#include <cmath>

#include "base/rounding.h"
#include "parallel/pool.h"
#include "score/door.h"

namespace nf::score {
namespace {

constexpr std::size_t kChunkTiles = 64;
// The centre only has to lie in the middle: the mean of some thousand rows does.
constexpr std::size_t kCentreRows = 8192;
constexpr std::size_t kRecentre = 4;

}  // namespace

FirstPass::FirstPass(std::size_t dim, Metric metric, Storage storage, std::uint64_t seed, int threads)
    : dim_(dim), metric_(metric), storage_(storage), rotation_(dim, seed, threads), centre_(dim) {}

void FirstPass::extend(const std::vector<Tile>& tiles, int threads) {
  const std::size_t rows = tiles.empty() ? 0 : tiles.back().first + tiles.back().count;
  if (rows == coded_rows_) return;
  if (rows >= kRecentre * centred_rows_) {
    tiles_.clear();
    coded_rows_ = 0;
    choose_centre(tiles, rows);
    centred_rows_ = rows;
  }
  while (chunks_.size() * kChunkTiles < tiles.size()) {
    AlignedBuffer<float> base(kChunkTiles * kTileRows);
    base.zero();
    chunks_.push_back(Chunk{codec::SignRows(kChunkTiles * kTileRows, dim_), std::move(base)});
  }
  // A tile that has grown is coded again, whole.
  const std::size_t begin = static_cast<std::size_t>(
      std::lower_bound(tiles.begin(), tiles.end(), coded_rows_, [](const Tile& each, std::size_t end) { return each.first + each.count <= end; }) -
      tiles.begin());
  tiles_.resize(tiles.size());
  raise_if_bad(parallel::parallel_for(tiles.size() - begin, threads, [&](std::size_t first, std::size_t last, std::size_t) {
    for (std::size_t t = begin + first; t < begin + last; ++t) code(tiles[t], t);
  }));
  coded_rows_ = rows;
}

void FirstPass::choose_centre(const std::vector<Tile>& tiles, std::size_t rows) {
  const std::size_t step = std::max<std::size_t>(1, rows / kCentreRows);
  std::vector<double> sum(dim_, 0.0);
  std::vector<float> place(dim_);
  std::size_t taken = 0, next = 0;
  for (const Tile& tile : tiles) {
    for (; next < tile.first + tile.count; next += step, ++taken) {
      const float* const row = row_of(tile, storage_, dim_, next - tile.first, place.data());
      for (std::size_t i = 0; i < dim_; ++i) sum[i] += static_cast<double>(row[i]);
    }
  }
  for (std::size_t i = 0; i < dim_; ++i) centre_[i] = static_cast<float>(sum[i] / static_cast<double>(taken));
}

void FirstPass::code(const Tile& tile, std::size_t t) {
  Chunk& chunk = chunks_[t / kChunkTiles];
  const std::size_t at = t % kChunkTiles * kTileRows;
  std::vector<float> place(dim_), rest(tile.count * dim_), rotated(tile.count * dim_);
  std::vector<double> squares(tile.count);
  SignTile coded{chunk.rows.view().from(at, dim_), chunk.base.data() + at};
  const double centre = std::sqrt(dot64(centre_.data(), centre_.data(), dim_));
  for (std::size_t j = 0; j < tile.count; ++j) {
    const float* const row = row_of(tile, storage_, dim_, j, place.data());
    float* const v = rest.data() + j * dim_;
    for (std::size_t i = 0; i < dim_; ++i) v[i] = static_cast<float>(static_cast<double>(row[i]) - static_cast<double>(centre_[i]));
    squares[j] = dot64(v, v, dim_);
    // Each value of v is a difference rounded once: 2^-24 of |v| in all.
    const double base = metric_ == Metric::l2 ? -squares[j] * (1.0 - 0x1p-22) : dot64(centre_.data(), v, dim_) + 0x1p-23 * centre * std::sqrt(squares[j]);
    chunk.base[at + j] = rounded_up(base);
    coded.max_base = std::max(coded.max_base, std::fabs(chunk.base[at + j]));
  }
  rotation_.apply(rest.data(), tile.count, rotated.data());
  for (std::size_t j = 0; j < tile.count; ++j) {
    chunk.rows.encode(at + j, rotated.data() + j * dim_, squares[j]);
    coded.max_factor = std::max(coded.max_factor, coded.codes.factor[j]);
    coded.max_error = std::max(coded.max_error, coded.codes.error[j]);
  }
  tiles_[t] = coded;
}

}  // namespace nf::score
