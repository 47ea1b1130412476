// Scanning a tile by its int8 codes: every row whose exact score may still matter comes out with an interval that holds that score.
//
// For a row x = s c + e and a query q = t g + r (g the query's codes):  q . x = t s (g . c) + r . (s c) + q . e, so
//   |q . x - t s (g . c)| <= |r| |s c| + |q| |e|                                   (Cauchy-Schwarz twice)
// |e| is stored with the row. |r| is some 2^-15 of |q| and hardly matters: the query has 16-bit codes, or 8-bit codes and 8-bit codes of what
// those leave out. cosine and ip score q . x; l2 scores 2 q . x - |x|^2 - |q|^2.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/aligned.h"
#include "base/metric.h"
#include "kernels/scan_i8/contract.h"
#include "score/plan.h"
#include "score/scan.h"

namespace nf::score {

// One query as codes; `norm` is that of what the codes stand for (cosine: the unit query, so 1 or 0).
struct CodedQuery {
  double norm = 0.0;
  double step = 0.0;
  double residual = 0.0;  // what all codes leave out
  double coarse = 0.0;    // what the first ones leave out
  std::int32_t code_sum = 0, low_sum = 0;
};

class CodedQueries {
 public:
  // Codes of the width that the kernel takes.
  CodedQueries(Metric metric, std::size_t dim, const std::vector<Query>& queries, const kernels::ScanI8& kernel, int threads);

  const CodedQuery& operator[](std::size_t i) const { return each_[i]; }
  // `count` queries from `first` on, as the kernel wants them.
  kernels::ScanI8Queries from(std::size_t first, std::size_t count, const kernels::ScanI8Query* each) const;
  // False where some query or product is too small or too large for the scan's float32 tests.
  bool usable() const { return usable_; }

 private:
  void encode(std::size_t i, const float* row, double factor, std::size_t dim, double code_max);

  std::size_t stride_;
  bool usable_ = true;
  std::vector<CodedQuery> each_;
  AlignedBuffer<std::int16_t> wide_;
  AlignedBuffer<std::int8_t> narrow_, low_;
};

// What the scan of one tile says of scores, for one query.
class CodedBound {
 public:
  CodedBound(Metric metric, std::size_t dim, const CodedQuery& query, double max_norm);

  // The kernel's view of the query: it lets a row through unless its score is certain to lie below `threshold`. `add` are the row terms
  // (add_terms), none larger than `max_add` in size.
  kernels::ScanI8Query probe(double threshold, const float* add, double max_add) const;

  // Where the exact score of a row lies, its bias included.
  Candidate around(const codec::PackedView& rows, const kernels::ScanI8Hit& hit, double bias, std::uint64_t slot) const;

  static bool fits(double max_norm);

 private:
  bool squared_;
  double factor_;  // 2 for l2, 1 otherwise
  CodedQuery query_;
  double max_norm_;
  double fixed_;   // error of the query's codes and of float64 arithmetic, for any row of the tile
  double coarse_;  // the same for the first codes alone
};

// The row terms of a tile beside the product: -|x|^2 for l2, plus the bias where there is one. Returns the largest size among them.
double add_terms(Metric metric, const codec::PackedView& rows, const float* bias, std::size_t count, float* out);

}  // namespace nf::score
