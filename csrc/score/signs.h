// Scanning a tile by one bit for each dimension: a row comes out unless its score lies below the cut, up to a chosen probability.
//
// With rows x = c + v and a query q = c + p:  q . x = p . v + c . v + q . c, and |q - x|^2 = |p - v|^2. The estimate of p . v from v's signs
// is off by error * (u . p), where u is a uniformly random unit vector at a right angle to v (codec/signs.h). So for one row that was chosen
// without regard to the rotation, the upper end  estimate + error * reach * |p|  lies below the true value with probability at most
// P(u_1 > reach), u uniform on the unit sphere of D - 1 dimensions (Theorem 3.2 of the paper, with the distribution itself for its tail).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/aligned.h"
#include "base/metric.h"
#include "kernels/scan_1bit/contract.h"
#include "score/first_pass.h"
#include "score/plan.h"

namespace nf::score {

// The smallest value that one coordinate of a uniform point on the unit sphere of `dims` >= 2 dimensions exceeds with probability at most
// `chance`, up to the bound's own slack (7 % of the chance where it is 1e-4). 1 when there is none smaller.
double sphere_reach(std::size_t dims, double chance);

// Queries less the centre, rotated, as tables of 8-bit entries: for four dimensions each, the sum of their values under every pattern of
// signs. Rounding the sixteen sums rather than the values (the paper's 4 bits) leaves a known error, about 0.01 of |p| |v| at 384
// dimensions where the chance part is 0.14, and it is added to the bound.
class SignQueries {
 public:
  // Each query keeps all of its k best rows with probability at least `guarantee`: only those k can be missed by mistake, so each may be
  // with (1 - guarantee) / k. A hundredth of that is kept back for signs that float32 rounding turns (about one in a million).
  SignQueries(const FirstPass& pass, Metric metric, std::size_t dim, const std::vector<Query>& queries, double guarantee, std::size_t k);

  // False where some value could leave float32's range.
  bool usable() const { return usable_; }

  // The kernel's view of query i for a tile none of whose rows is longer than `max_norm`; `add` are the tile's base terms, with biases where
  // there are any, none larger than `max_add` in size.
  kernels::Scan1BitQuery probe(std::size_t i, double threshold, const SignTile& tile, double max_norm, const float* add, double max_add) const;

 private:
  struct One {
    double step, shift, slack;  // of the kernel's test
    double rest;                // what a score lacks: q . c, or -|p|^2 for l2
    double peak;                // the largest |step * sum| + |shift|
    double norm;                // |q|
  };
  void encode(std::size_t i, const float* rotated, double norm);

  Metric metric_;
  std::size_t dim_, groups_;
  double reach_;
  bool usable_ = true;
  std::vector<One> each_;
  AlignedBuffer<std::uint8_t> tables_;
};

}  // namespace nf::score
