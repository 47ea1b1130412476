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

void Graph::append(const float* values, std::size_t count) {
  const std::size_t old = size(), now = old + count;
  if (count > kMostNodes - old) throw InputError("vectors: more than 2,147,483,647 rows in one index, which 31 bits cannot name");
  std::size_t slots = upper.size();
  try {
    for (std::size_t node = old; node < now; ++node) {
      const unsigned level = level_of(params.seed, node, params.m);
      upper_first.push_back(static_cast<std::uint32_t>(slots));
      levels.push_back(static_cast<std::uint8_t>(level));
      slots += level;
    }
    if (slots >= kNone) throw InputError("vectors: too many rows in one index for this M, choose a larger one");
    deleted.resize(now, 0);
    norms.resize(now, 0.0f);
    rows.grow(now);
    codes.grow(now);
    links0.grow(now);
    upper.grow(slots);
    for (std::size_t i = 0; i < count; ++i) {
      const float* row = values + i * params.dim;
      std::memcpy(rows[old + i], row, params.dim * sizeof(float));
      norms[old + i] = norm_above(row, params.dim);
    }
    if (old == 0) set_centre();
    encode(old);
  } catch (...) {
    truncate(old);
    throw;
  }
  live += count;
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
  std::vector<float> rest(params.dim);
  for (std::size_t i = first; i < size(); ++i) with.encode_row(rows[i], rest.data(), codes[i]);
}

void Graph::truncate(std::size_t size) {
  if (size < upper_first.size()) upper.shrink(upper_first[size]);
  rows.shrink(size);
  codes.shrink(size);
  links0.shrink(size);
  upper_first.resize(size);
  levels.resize(std::min(size, levels.size()));
  deleted.resize(std::min(size, deleted.size()));
  norms.resize(std::min(size, norms.size()));
  live = static_cast<std::size_t>(std::count(deleted.begin(), deleted.end(), std::uint8_t{0}));
}

}  // namespace nf::graph
