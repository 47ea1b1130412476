#include "graph/skim.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/prefetch.h"

namespace nf::graph {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr double kHalf = 0.5 * 1.00125, kLargestCode = 127.0;
// Of the largest size of a distance's terms, for their rounding in float32.
constexpr double kRounding = 1e-6;
// Where scales lie in between, no product of them and of codes leaves float32, and none is so small that rounding to denormals shows.
constexpr float kLeastScale = 1e-15f, kMostScale = 1e14f;
constexpr double kMostTerm = 1e37;
// Rows asked for together, while as many are multiplied.
constexpr std::size_t kAhead = 4;

bool within(float scale) { return scale >= kLeastScale && scale <= kMostScale; }

double norm_of(const float* row, std::size_t dim) {
  double sum = 0.0;
  for (std::size_t i = 0; i < dim; ++i) sum += static_cast<double>(row[i]) * row[i];
  return std::sqrt(sum);
}

}  // namespace

void Skim::begin(const codec::Coder& coder, Metric metric, std::size_t k) {
  coder_ = &coder;
  metric_ = metric;
  k_ = k;
  count_ = 0;
  centre_ = norm_of(coder.centre(), coder.dim());
  queries_.resize(kQueries);
}

void Skim::add(const score::Query& query, const float* bias) {
  Each& each = queries_[count_++];
  each.coded.prepare(*coder_, metric_, query);
  each.collector = score::Collector(k_);
  each.bias = bias;
  each.base = each.coded.base(metric_);
  each.factor = static_cast<double>(each.coded.probe.factor);
  const auto dim = static_cast<double>(coder_->dim());
  const double step = static_cast<double>(coder_->scale_of(each.coded.probe));
  const double length = norm_of(each.coded.rest.data(), coder_->dim());
  const double sides = metric_ == Metric::l2 ? 2.0 : 1.0;
  const double searched = metric_ == Metric::cosine ? 1.0 : query.norm;
  const double sizes = length + centre_ + searched;
  each.fixed = kRounding * searched * centre_;
  const double shared = kHalf * length * std::sqrt(dim) + kRounding * kLargestCode * std::sqrt(dim) * sizes;
  each.coarse = sides * (shared + kHalf * kLargestCode * dim * step);
  each.close = sides * (shared + kHalf * kLargestCode * dim * step / 254.0);
  // A query of nothing scores 0 with every row under cosine; sizes beyond the rest keep float32 within its range.
  each.usable = within(static_cast<float>(step)) && each.coarse < kMostTerm / kMostScale && std::fabs(each.base) < kMostTerm &&
                !(metric_ == Metric::cosine && query.norm == 0.0);
}

void Skim::read_terms(const std::int8_t* const* rows, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    const codec::CodeTerms terms = codec::terms_of(rows[i], coder_->width());
    const bool usable = within(terms.scale) && std::fabs(terms.add) < static_cast<float>(kMostTerm);
    scales_[i] = usable ? terms.scale : 0.0f;
    adds_[i] = usable ? terms.add - 2.0f * static_cast<float>(kRounding) * std::fabs(terms.add) : -kInfinity;
  }
}

// The largest distance that may still matter.
float Skim::limit_of(const Each& each) const {
  if (!each.usable) return kInfinity;
  const double threshold = each.collector.threshold();
  const double limit = each.base - threshold + each.fixed + kRounding * (std::fabs(each.base) + std::fabs(threshold));
  return std::fabs(limit) < kMostTerm ? std::nextafter(static_cast<float>(limit), kInfinity) : kInfinity;
}

void Skim::take(const std::uint32_t* nodes, const std::int8_t* const* rows, std::size_t n, const std::int8_t* const* ahead, std::size_t next,
                const Scores& scores) {
  read_terms(rows, n);
  float least[kBlock];
  for (std::size_t query = 0; query < count_; ++query) {
    const Each& each = queries_[query];
    for (std::size_t i = 0; i < n; i += kAhead) {
      if (query == 0) {
        for (std::size_t j = i; j < std::min(next, i + kAhead); ++j) prefetch(ahead[j], coder_->width() + sizeof(codec::CodeTerms));
      }
      coder_->products(each.coded.codes.data(), rows + i, std::min(kAhead, n - i), products_ + i);
    }
    const auto factor = static_cast<float>(each.factor), margin = static_cast<float>(each.coarse);
    for (std::size_t i = 0; i < n; ++i) least[i] = adds_[i] + scales_[i] * (factor * static_cast<float>(products_[i]) - margin);
    if (each.bias != nullptr) {
      for (std::size_t i = 0; i < n; ++i) least[i] -= each.bias[nodes[i]] + 2.0f * static_cast<float>(kRounding) * std::fabs(each.bias[nodes[i]]);
    }
    const float limit = limit_of(each);
    for (std::size_t i = 0; i < n; ++i) {
      if (!(least[i] > limit)) look_closer(query, i, nodes[i], rows[i], scores);
    }
  }
}

void Skim::look_closer(std::size_t query, std::size_t i, std::uint32_t node, const std::int8_t* row, const Scores& scores) {
  Each& each = queries_[query];
  const double bias = each.bias != nullptr ? static_cast<double>(each.bias[node]) : 0.0;
  const score::ExactScore exact = [&](std::uint64_t slot) {
    const auto at = static_cast<std::uint32_t>(slot);
    return scores(query, at) + (each.bias != nullptr ? static_cast<double>(each.bias[at]) : 0.0);
  };
  if (!each.usable || scales_[i] == 0.0f) {
    each.collector.offer_exactly(node, exact);
    return;
  }
  std::int32_t low;
  coder_->products(each.coded.fine.data(), &row, 1, &low);
  const codec::CodeTerms terms = codec::terms_of(row, coder_->width());
  const double scale = static_cast<double>(terms.scale), add = static_cast<double>(terms.add);
  const double distance = add + scale * each.factor * (static_cast<double>(products_[i]) + static_cast<double>(low) / 254.0);
  const double score = each.base - distance + bias;
  const double off = scale * each.close + each.fixed + kRounding * (std::fabs(each.base) + std::fabs(add) + std::fabs(bias));
  each.collector.offer({score - off, score + off, node}, exact);
}

}  // namespace nf::graph
