#include "graph/graph.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/random.h"
#include "base/status.h"

namespace nf::graph {
float norm_above(const float* row, std::size_t dim) {
  double sum = 0;
  for (std::size_t i = 0; i < dim; ++i) sum += static_cast<double>(row[i]) * row[i];
  // The double sum is off by less than dim * 2^-53, the conversion by 2^-24: 2^-22 covers both up to dim = 2^16.
  return static_cast<float>(std::sqrt(sum) * (1 + 0x1p-22));
}

unsigned level_of(std::uint64_t seed, std::uint64_t ordinal, std::uint32_t m) {
  const std::uint64_t hash = mix64(mix64(seed + kGolden64) + (ordinal + 1) * kGolden64);
  unsigned level = 0;
  for (std::uint64_t below = std::numeric_limits<std::uint64_t>::max() / m; below > 0 && hash < below; below /= m) ++level;
  return level;
}

void Graph::extend(const std::vector<std::uint8_t>& more) {
  const std::size_t old = size(), now = old + more.size();
  if (more.size() > kMostNodes - old) throw InputError("vectors: more than 2,147,483,647 rows in one index, which 31 bits cannot name");
  std::size_t slots = slots_;
  for (const std::uint8_t level : more) slots += level;
  if (slots >= kNone) throw InputError("vectors: too many rows in one index for this M, choose a larger one");
  upper_first.grow(now);
  levels.grow(now);
  norms.grow(now);
  rows.grow(now);
  codes.grow(now);
  links0.grow(now);
  upper.grow(slots);
  deleted.cover(now);
  // Nothing throws from here on; what grew before an exception is there for the next call, and empty.
  for (std::size_t i = 0; i < more.size(); ++i) {
    upper_first[old + i] = static_cast<std::uint32_t>(slots_);
    levels[old + i] = more[i];
    slots_ += more[i];
  }
  size_ = now;
}

void Graph::append(const float* values, std::size_t count) {
  const std::size_t old = size();
  std::vector<std::uint8_t> more(count);
  for (std::size_t i = 0; i < count; ++i) more[i] = static_cast<std::uint8_t>(level_of(params.seed, born + i, params.m));
  extend(more);
  for (std::size_t i = 0; i < count; ++i) std::memcpy(rows[old + i], values + i * params.dim, params.dim * sizeof(float));
  if (old == 0) set_centre();
  encode(old);
  born += count;
}

void Graph::set_centre() {
  const std::size_t count = std::min(size(), kCentreRows);
  std::vector<double> sums(params.dim, 0.0);
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t j = 0; j < params.dim; ++j) sums[j] += static_cast<double>(rows[i][j]);
  }
  for (std::size_t j = 0; count != 0 && j < params.dim; ++j) centre[j] = static_cast<float>(sums[j] / static_cast<double>(count));
}

void Graph::encode(std::size_t first) {
  const codec::Coder with = coder();
  for (std::size_t i = first; i < size(); ++i) {
    norms[i] = norm_above(rows[i], params.dim);
    with.encode_row(rows[i], rest_.data(), codes[i]);
  }
}

}  // namespace nf::graph
