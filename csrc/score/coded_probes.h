// The kernel's view of a block of queries, from scan to scan.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <vector>

#include "base/metric.h"
#include "score/coded.h"

namespace nf::score {

// A query's threshold moves in few scans and the norms of rows hardly ever, so only what changed is made anew: beside AMX, which is through with
// 512 rows for a query in 50 ns, making every probe for every scan would take as long as the scan.
class CodedProbes {
 public:
  // Before the first scan for other queries.
  void forget() { each_.clear(); }

  // Bounds for rows no longer than `max_norm` with row terms no larger than `max_add`. `add_of(i)` are query i's row terms.
  template <typename AddOf>
  void fit(Metric metric, std::size_t dim, const CodedQueries& coded, std::size_t begin, std::size_t nq, double max_norm, double max_add,
           const AddOf& add_of) {
    if (each_.size() == nq && fits(max_norm, norm_) && fits(max_add, add_)) return;
    norm_ = max_norm * kRoom;
    add_ = max_add * kRoom;
    bounds_.clear();
    each_.resize(nq);
    thresholds_.assign(nq, std::numeric_limits<double>::quiet_NaN());
    for (std::size_t i = 0; i < nq; ++i) {
      bounds_.emplace_back(metric, dim, coded[begin + i], norm_);
      each_[i].add = add_of(i);
    }
  }

  void set_threshold(std::size_t i, double threshold) {
    if (threshold == thresholds_[i]) return;
    thresholds_[i] = threshold;
    each_[i] = bounds_[i].probe(threshold, each_[i].add, add_);
  }

  const kernels::ScanI8Query* each() const { return each_.data(); }
  const CodedBound& bound(std::size_t i) const { return bounds_[i]; }

 private:
  // Bounds are made a thousandth wider than the scan needs, so that the next rows' last bits do not make them anew, and stay while they are
  // not much wider than that.
  static constexpr double kRoom = 1.0 + 0x1p-10, kLoose = 0.75;
  static bool fits(double wanted, double made) { return wanted <= made && wanted >= kLoose * made; }

  std::vector<CodedBound> bounds_;
  std::vector<kernels::ScanI8Query> each_;
  std::vector<double> thresholds_;  // that each_ were made for
  double norm_ = 0.0, add_ = 0.0;
};

}  // namespace nf::score
