// Scores of chosen rows, for reranking: the very ones that a search reports for these rows (score/exact.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/metric.h"
#include "base/view.h"
#include "score/scan.h"

namespace nf::score {

// Rows that can be asked for one by one, by several threads.
class RowSource {
 public:
  virtual ~RowSource() = default;
  // Row `slot` as float32: where it lies, or written to `place` (as long as a row).
  virtual const float* row(std::uint64_t slot, float* place) const = 0;
  // Asks for the memory of a row that will be read soon.
  virtual void prefetch(std::uint64_t slot) const = 0;
};

// For prefetch(): asks for the lines of a row of `bytes` bytes.
void prefetch_lines(const void* row, std::size_t bytes);

// What is asked: for each query, the rows in its line of `slots` (nq, m), dense, each below `count`; -1 where there is none.
struct Chosen {
  MatrixView<float> queries;
  MatrixView<std::int64_t> slots;
  std::uint64_t count = 0;
  int threads = 1;
};

// out (nq, m), dense: the float64 score rounded once to float32, NaN where the slot is -1.
// Throws InputError "queries: row ..." for NaN, infinity or a norm beyond float32, and "candidates: row ..., place ..." for a slot out of range.
void gather(Metric metric, const RowSource& rows, const Chosen& chosen, float* out);

// The same over stored rows, dead ones too, and over the caller's: of these, only the rows chosen are read and, for cosine, normalized.
// Throws InputError "vectors: row ..." for one of them that holds NaN, infinity or a norm beyond float32.
void gather(const Rows& rows, const Chosen& chosen, float* out);
void gather_borrowed(Metric metric, MatrixView<float> rows, const Chosen& chosen, float* out);

}  // namespace nf::score
