#include "score/collector.h"

#include <algorithm>
#include <functional>
#include <queue>

namespace nf::score {
namespace {

constexpr std::size_t kAskedAhead = 4;

}  // namespace

// The k-th largest lower bound is reached by k candidates. Of the bounds alone, a third of a candidate's bytes: to look for it among whole
// candidates, which go at the same time, took a tenth of a search. A heap, which always knows it, is no faster at k = 100.
void Collector::select() {
  if (lowers_.size() < k_) return;
  std::nth_element(lowers_.begin(), lowers_.begin() + static_cast<std::ptrdiff_t>(k_ - 1), lowers_.end(), std::greater<>());
  lowers_.resize(k_);
  least_ = lowers_.back();
  raise_to(least_);
}

void Collector::drop_hopeless() {
  kept_.erase(std::remove_if(kept_.begin(), kept_.end(), [this](const Candidate& each) { return each.upper < threshold_; }), kept_.end());
}

void Collector::make_exact(Candidate& candidate, const ExactScore& exact) {
  if (candidate.lower == candidate.upper) return;
  candidate.lower = candidate.upper = exact(candidate.slot);
  ++rescored_;
}

void Collector::shrink(const ExactScore& exact) {
  select();
  drop_hopeless();
  if (kept_.size() <= capacity_ / 2) return;
  // Many scores within one error bound of each other, duplicates for example: only exact scores tell them apart.
  for (Candidate& each : kept_) make_exact(each, exact);
  const auto kth = kept_.begin() + static_cast<std::ptrdiff_t>(k_ - 1);
  std::nth_element(kept_.begin(), kth, kept_.end(), ranks_before);
  kept_.resize(k_);
  lowers_.clear();
  for (const Candidate& each : kept_) lowers_.push_back(each.lower);
  select();
}

const std::vector<Candidate>& Collector::finish(const ExactScore& exact, const AskFor& ask_for) {
  select();
  drop_hopeless();
  // From the most promising on, and no further than the k-th exact score allows.
  std::sort(kept_.begin(), kept_.end(), [](const Candidate& a, const Candidate& b) { return a.upper > b.upper; });
  std::priority_queue<double, std::vector<double>, std::greater<double>> best;
  // Rows that survive lie anywhere, and each is a wait for memory of the length of two scores.
  for (std::size_t i = 0; i < std::min(kAskedAhead, kept_.size()); ++i) ask_for(kept_[i].slot);
  std::size_t seen = 0;
  for (; seen < kept_.size() && (best.size() < k_ || kept_[seen].upper >= best.top()); ++seen) {
    if (seen + kAskedAhead < kept_.size()) ask_for(kept_[seen + kAskedAhead].slot);
    make_exact(kept_[seen], exact);
    best.push(kept_[seen].lower);
    if (best.size() > k_) best.pop();
  }
  kept_.resize(seen);
  std::sort(kept_.begin(), kept_.end(), ranks_before);
  if (kept_.size() > k_) kept_.resize(k_);
  return kept_;
}

}  // namespace nf::score
