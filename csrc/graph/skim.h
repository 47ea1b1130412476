// A scan of some nodes by their coded rows, for up to sixteen queries at once: an eighth of the work of scoring every row, and a group reads each
// row once. Every node whose score may be among a query's k best comes out, so what is scored in the end is exact.
//
// A row x less the centre c is s g + e (codes g, scale s), a query less the centre w = t h + r. Each value is coded to the nearest step, so
// |e_i| <= s / 2, |r_i| <= t / 2, |g_i| <= 127, and with n dimensions
//   |w . (x - c) - t s h . g| <= s (|w| sqrt(n) / 2 + 127 n t / 2)        by the query's first codes: every row
//                             <= s (|w| sqrt(n) / 2 + 127 n t / 508)      by both of its codes: rows that may matter by the first
// An eighth of a percent of each half step is added for what float32 rounds on the way to the codes, and 1e-6 of the largest size that any term
// can have for what is rounded in a distance: float32's unit is 6e-8, and a term passes fewer than eight roundings.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "graph/coded_query.h"
#include "score/collector.h"

namespace nf::graph {

class Skim {
 public:
  static constexpr std::size_t kQueries = 16;  // their codes, twice 384 bytes each, and a block of rows share the first cache
  static constexpr std::size_t kBlock = 32;

  // No queries yet; k of each are wanted. The coder must outlive the scan.
  void begin(const codec::Coder& coder, Metric metric, std::size_t k);
  // At most kQueries. `bias`: one value for each node, or null.
  void add(const score::Query& query, const float* bias);
  std::size_t queries() const { return count_; }
  const CodedQuery& coded(std::size_t query) const { return queries_[query].coded; }

  // Goes over the nodes; `row_of` tells where a node's coded row lies, `exact` the score of a node for a query, without bias.
  template <class RowOf, class Exact>
  void over(const std::vector<std::uint32_t>& nodes, const RowOf& row_of, const Exact& exact) {
    const Scores scores = [&](std::size_t query, std::uint32_t node) { return exact(query, node); };
    const std::int8_t *rows[kBlock], *ahead[kBlock];
    std::size_t n = 0;
    for (std::size_t begin = 0, next = fill(nodes, 0, row_of, ahead); begin < nodes.size(); begin += n) {
      n = next;
      for (std::size_t i = 0; i < n; ++i) rows[i] = ahead[i];
      next = fill(nodes, begin + n, row_of, ahead);
      take(nodes.data() + begin, rows, n, ahead, next, scores);
    }
  }
  // The k best of a query, best first, once all nodes have been seen: `exact(node)` scores, `ask_for(node)` fetches what that reads.
  template <class Exact, class AskFor>
  const std::vector<score::Candidate>& best(std::size_t query, const Exact& exact, const AskFor& ask_for) {
    const float* const bias = queries_[query].bias;
    return queries_[query].collector.finish(
        [&](std::uint64_t node) {
          const auto at = static_cast<std::uint32_t>(node);
          return exact(at) + (bias != nullptr ? static_cast<double>(bias[at]) : 0.0);
        },
        [&](std::uint64_t node) { ask_for(static_cast<std::uint32_t>(node)); });
  }

 private:
  using Scores = std::function<double(std::size_t query, std::uint32_t node)>;
  struct Each {
    CodedQuery coded;
    score::Collector collector{1};
    const float* bias = nullptr;
    double base = 0.0;
    double factor = 0.0;              // of a product of codes and the row's scale, in a distance
    double coarse = 0.0, close = 0.0; // how far off a distance may be, in the row's scale
    double fixed = 0.0;               // and besides, whatever the row: what scaling the query to norm 1 rounds, times the centre
    bool usable = false;              // otherwise every row is scored
  };

  template <class RowOf>
  static std::size_t fill(const std::vector<std::uint32_t>& nodes, std::size_t begin, const RowOf& row_of, const std::int8_t** rows) {
    const std::size_t n = begin < nodes.size() ? std::min(kBlock, nodes.size() - begin) : 0;
    for (std::size_t i = 0; i < n; ++i) rows[i] = row_of(nodes[begin + i]);
    return n;
  }
  void take(const std::uint32_t* nodes, const std::int8_t* const* rows, std::size_t n, const std::int8_t* const* ahead, std::size_t next, const Scores& scores);
  void read_terms(const std::int8_t* const* rows, std::size_t n);
  float limit_of(const Each& each) const;
  void look_closer(std::size_t query, std::size_t i, std::uint32_t node, const std::int8_t* row, const Scores& scores);

  const codec::Coder* coder_ = nullptr;
  Metric metric_ = Metric::cosine;
  std::size_t k_ = 1, count_ = 0;
  double centre_ = 0.0;  // its norm
  std::vector<Each> queries_;
  // Of a block's rows: the terms, and those of rows whose terms are out of range as if they were as near as can be.
  float scales_[kBlock], adds_[kBlock];
  std::int32_t products_[kBlock];
};

}  // namespace nf::graph
