// Rows for exact search: appended, marked dead, never moved. A slot is a row's number in order of insertion and stays its name.
//
// Searches share a lock, append and remove take it alone. Memory grows by segments, so no append copies the rows before it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/aligned.h"
#include "base/metric.h"
#include "base/view.h"
#include "codec/packed.h"
#include "parallel/rwlock.h"
#include "score/first_pass.h"
#include "score/scan.h"
#include "storage/sections.h"

namespace nf::score {

constexpr std::size_t kMaxDim = 65536;

class FlatStore {
 public:
  FlatStore(std::size_t dim, Metric metric, Storage storage);

  // Borrows `count` rows from the file (sections "rows", empty for int8, "tile_norms", "codes", "code_scales", "code_errors" and
  // "code_squares"), which it keeps alive. Throws FormatError when the sections do not have the sizes that dim, storage and count ask for.
  FlatStore(std::shared_ptr<storage::MappedFile> file, std::size_t dim, Metric metric, Storage storage, std::size_t count);

  std::size_t dim() const { return dim_; }
  Metric metric() const { return metric_; }
  Storage storage() const { return storage_; }
  std::size_t slots() const;
  std::size_t live() const;

  // Appends rows as slots slots().. and marks `dead` slots dead, as one step for every search. All or nothing.
  // Throws InputError "vectors: row ..." for NaN, infinity or a norm beyond float32, and for a dead slot that does not exist.
  void append(MatrixView<float> rows, const std::vector<std::uint64_t>& dead, int threads);

  // As score::search, over slots 0..limit-1 (limit <= slots()); mask and bias have `limit` columns. The first search with a guarantee below 1
  // makes one-bit codes of the rows, later ones those of rows added since; other searches go on meanwhile, appends wait.
  void search(MatrixView<float> queries, const Options& options, std::size_t limit, const Answer& answer) const;

  // As score::gather, over all slots.
  void score(MatrixView<float> queries, MatrixView<std::int64_t> slots, int threads, float* out) const;
  // Draws another rotation for the one-bit codes: the guarantee is a probability over it, which tests measure.
  void set_rotation(std::uint64_t seed);

  // The stored rows (cosine: unit rows; decoded), dense. Throws InputError for a slot that does not exist.
  void get(const std::vector<std::uint64_t>& slots, float* out) const;

  std::vector<std::uint64_t> live_slots() const;

  // A store of the live rows alone, renumbered 0.. in order.
  std::unique_ptr<FlatStore> compacted() const;

  // Writes a container of kind "flat": the live rows in order, after the sections already in `writer`.
  void save(storage::Writer& writer, const std::string& path) const;

 private:
  struct Segment {
    AlignedBuffer<unsigned char> owned;  // empty when the rows lie in file_
    codec::PackedRows codes;
    std::size_t capacity = 0;            // rows that fit into owned
    std::size_t count = 0;
  };
  struct Encoded {
    AlignedBuffer<unsigned char> rows;
    std::vector<float> norms;
    codec::PackedRows codes;
  };

  Rows rows_below(std::size_t limit) const;
  const FirstPass* first_pass(int threads) const;
  Encoded room_for(std::size_t count) const;
  Encoded encode(MatrixView<float> rows, int threads) const;
  void reserve_for(std::size_t more);
  void place(const Encoded& encoded, std::size_t count);
  void adopt(Encoded encoded, std::size_t count);
  void extend_tiles(const Segment& segment, const float* norms, std::size_t count);

  const std::size_t dim_;
  const Metric metric_;
  const Storage storage_;
  const std::size_t row_bytes_;
  std::shared_ptr<storage::MappedFile> file_;
  mutable parallel::RwLock lock_;
  std::vector<Segment> segments_;
  std::vector<Tile> tiles_;
  std::vector<std::uint8_t> live_;
  std::size_t dead_count_ = 0;
  mutable std::mutex coding_;  // taken under lock_ only
  mutable std::unique_ptr<FirstPass> first_pass_;
  std::uint64_t rotation_ = 0;
};

}  // namespace nf::score
