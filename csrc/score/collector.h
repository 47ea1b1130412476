// The running top-k of one query: candidates as intervals that hold their exact score, narrowed to exact scores only where it matters.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

namespace nf::score {

struct Candidate {
  double lower;  // lower <= exact score <= upper; both equal the exact score once it has been computed
  double upper;
  std::uint64_t slot;
};

// Larger score first; equal scores in order of insertion.
inline bool ranks_before(const Candidate& a, const Candidate& b) { return a.lower != b.lower ? a.lower > b.lower : a.slot < b.slot; }

// The exact float64 score of a slot.
using ExactScore = std::function<double(std::uint64_t slot)>;
// Asks memory for a slot's row.
using AskFor = std::function<void(std::uint64_t slot)>;

class Collector {
 public:
  explicit Collector(std::size_t k) : k_(k), capacity_(2 * k + 256) {}

  // No candidate whose upper bound lies below this can be among the k best: k candidates are certain to score at least as much.
  double threshold() const { return threshold_; }

  void offer(const Candidate& candidate, const ExactScore& exact) {
    if (candidate.upper < threshold_) return;
    keep(candidate);
    if (kept_.size() >= capacity_) shrink(exact);
  }

  // Offers a slot whose exact score is computed at once, because nothing bounds it.
  void offer_exactly(std::uint64_t slot, const ExactScore& exact) {
    const double score = exact(slot);
    ++rescored_;
    offer(Candidate{score, score, slot}, exact);
  }

  // Raises the threshold where enough lower bounds have come since it last was.
  void settle() {
    if (lowers_.size() > k_ + k_ / 4) select();
  }

  // Another part of the rows knows k candidates that are certain to score at least `threshold`.
  void raise_to(double threshold) { threshold_ = std::max(threshold_, threshold); }

  // Takes over what another part of the rows collected, all of it: `finish` leaves out what both together can, while shrinking before that
  // would compute hundreds of exact scores to make room for nobody.
  void absorb(const Collector& other) {
    rescored_ += other.rescored_;
    raise_to(other.threshold_);
    for (const Candidate& candidate : other.kept_) {
      if (candidate.upper >= threshold_) keep(candidate);
    }
  }

  // The k best (fewer when fewer were offered), best first, with exact scores. `ask_for` hears of slots whose score will be wanted soon.
  const std::vector<Candidate>& finish(const ExactScore& exact, const AskFor& ask_for = [](std::uint64_t) {});

  // How many exact scores were computed.
  std::size_t rescored() const { return rescored_; }

 private:
  void keep(const Candidate& candidate) {
    kept_.push_back(candidate);
    if (candidate.lower <= least_) return;
    lowers_.push_back(candidate.lower);
    if (lowers_.size() >= k_ + std::max<std::size_t>(k_ / 2, 8)) select();
  }
  void select();
  void drop_hopeless();
  void make_exact(Candidate& candidate, const ExactScore& exact);
  void shrink(const ExactScore& exact);

  std::size_t k_;
  std::size_t rescored_ = 0;
  std::size_t capacity_;  // memory stays bounded even when every row has the same score
  double threshold_ = -std::numeric_limits<double>::infinity();
  std::vector<Candidate> kept_;
  // Lower bounds among which are the k largest of all, and the k-th largest when they were last looked at.
  std::vector<double> lowers_;
  double least_ = -std::numeric_limits<double>::infinity();
};

}  // namespace nf::score
