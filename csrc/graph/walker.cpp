#include "graph/walker.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/prefetch.h"
#include "graph/hops.h"

namespace nf::graph {
namespace {

// Rows that one call of the kernel takes while those of the next are on their way.
constexpr std::size_t kAhead = 4;
// Nodes that a walk over kept ones meets for each of its candidates, about.
constexpr std::size_t kHopsSeen = 64;
// Nearest doors from which a walk begins: the second helps where the first leads into a neighbourhood that is cut off.
constexpr std::size_t kOpenDoors = 2;

// A block: what a step reads first into the first-level cache, the rest into the second, which has more such fetches under way.
constexpr std::size_t kNearLines = 16;
[[gnu::always_inline]] inline void prefetch_block(const unsigned char* block, std::size_t bytes) {
  std::size_t at = 0;
  for (; at < bytes && at < kNearLines * kCacheLine; at += kCacheLine) __builtin_prefetch(block + at);
  for (; at < bytes; at += kCacheLine) __builtin_prefetch(block + at, 0, 2);
}

}  // namespace

void Ahead::leave(const unsigned char* block, std::size_t bytes) {
  if (block_ != nullptr) prefetch_block(block_, bytes);
  block_ = block;
}

void NodeSet::clear(std::size_t expected) {
  std::size_t places = 64;
  while (places < 2 * expected) places *= 2;
  resize(places);
}

void NodeSet::resize(std::size_t places) {
  places_.assign(places, kNone);
  used_ = 0;
  shift_ = 32;
  for (; places > 1; places /= 2) --shift_;
}

bool NodeSet::put(std::uint32_t node) {
  std::size_t at = place_of(node);
  for (; places_[at] != kNone; at = (at + 1) & (places_.size() - 1)) {
    if (places_[at] == node) return false;
  }
  places_[at] = node;
  ++used_;
  return true;
}

bool NodeSet::insert(std::uint32_t node) {
  if (2 * (used_ + 1) > places_.size()) {
    const std::vector<std::uint32_t> old = std::move(places_);
    resize(2 * old.size());
    for (const std::uint32_t each : old) {
      if (each != kNone) put(each);
    }
  }
  return put(node);
}

// For each four dimensions and each pattern of their signs, the sum of the rotated query's values: as a whole number of steps above the
// smallest such sum, so that  b . R w = step * (sum of entries) + shift.
void Walker::make_tables(const FrozenTools& tools) {
  constexpr std::size_t kDims = kernels::kSignGroupDims;
  const FrozenGraph& graph = tools.graph;
  const std::size_t groups = graph.shape.groups;
  rotated_.resize(graph.rotation.width());
  tables_.resize(groups * kernels::kSignGroupBytes);
  graph.rotation.apply(tools.hadamard, query_.rest.data(), rotated_.data());
  float widest = 0.0f, least = 0.0f;
  for (std::size_t i = 0; i < rotated_.size(); i += kDims) {
    const float* const y = rotated_.data() + i;
    const float reach = (std::fabs(y[0]) + std::fabs(y[1])) + (std::fabs(y[2]) + std::fabs(y[3]));
    widest = std::max(widest, reach);
    least -= reach;
  }
  const auto entries = static_cast<float>(std::min<std::size_t>(kernels::kEstimateEntryMax, 65535 / groups));
  // A query at the centre, or one so near or so far that the steps leave float32: every neighbour gets the same estimate.
  const bool usable = widest > 0x1p-100f && widest < 0x1p100f;
  // A table's whole range is 2 * reach, and an entry counts the dimensions of the pattern's sign twice.
  table_ = {tables_.data(), groups, usable ? 2.0f * widest / entries : 0.0f, usable ? least : 0.0f};
  if (usable) {
    tools.estimate.tables(rotated_.data(), groups, entries / widest, tables_.data());
  } else {
    std::fill(tables_.begin(), tables_.end(), std::uint8_t{0});
  }
}

void Walker::start(const FrozenTools& tools, std::size_t ef, std::size_t most, const Keep& keep, std::uint32_t skipped, const Reach& reach, Over over) {
  over_ = over;
  const FrozenGraph& graph = tools.graph;
  keep_ = keep;
  kept_ = expanded_ = 0;
  reach_ = reach;
  if (graph.params.metric == Metric::l2) {
    away_ = query_.square;
  } else {
    // |q| |x| - q . x: half of |q - x|^2 were the query as long as the rows, times what it is longer.
    away_ = std::sqrt(query_.square * reach.square) - query_.centre_product;
    reach_.least *= reach.square > 0.0 ? std::sqrt(query_.square / reach.square) : 1.0;
  }
  bound_ = ~Key{0};
  fetched_ = false;
  open_.use(tools.insert);
  found_.use(tools.insert);
  open_.reset(ef);
  found_.reset(most);
  seen_.clear(over == Over::kept ? kHopsSeen * ef : graph.layout == Layout::inlined ? 2 * ef : 16 * ef);
  if (skipped != kNone) seen_.insert(skipped);
  const std::size_t wide = over == Over::kept ? graph.shape.slots * (graph.shape.slots + 1) : graph.shape.slots;
  const std::size_t room = std::max(graph.doors.size(), std::max(wide, BlockShape::kRows));
  fresh_.resize(room);
  rows_.resize(room);
  products_.resize(room);
  distances_.resize(room);
  if (graph.layout == Layout::inlined && over == Over::all) make_tables(tools);
  const std::size_t n = graph.doors.size();
  for (std::size_t i = 0; i < n; ++i) rows_[i] = graph.door_rows.data() + i * graph.shape.row;
  tools.coder.distances(query_.probe, rows_.data(), n, products_.data(), distances_.data());
  Key nearest[kOpenDoors];
  std::fill(nearest, nearest + kOpenDoors, ~Key{0});
  for (std::size_t i = 0; i < n; ++i) {
    Key key = graph.doors[i] != skipped ? key_of(distances_[i], graph.doors[i]) : ~Key{0};
    for (Key& each : nearest) {
      const Key nearer = std::min(each, key);
      key = std::max(each, key);
      each = nearer;
    }
  }
  for (const Key key : nearest) {
    if (key != ~Key{0}) open_.offer(key);
  }
  if (graph.layout == Layout::compact || over == Over::kept) {
    for (std::size_t i = 0; i < open_.size(); ++i) {
      seen_.insert(node_of(open_[i]));
      if (keep_(node_of(open_[i]))) found_.offer(open_[i]);
    }
  }
  if (open_.open()) prefetch_block(graph.block(open_.next()), graph.shape.stride);
}

bool Walker::step(const FrozenTools& tools, Ahead* ahead) {
  const FrozenGraph& graph = tools.graph;
  const bool inlined = graph.layout == Layout::inlined && over_ == Over::all;
  while (open_.open() && open_.next_key() < bound_) {
    const std::uint32_t node = open_.expand();
    if (inlined) {
      // A node may be a candidate several times, with estimates from several neighbours.
      if (!seen_.insert(node)) continue;
      // A walk by itself waits for each block. The next best is mostly the next step's too, and comes while this one is computed: 5 to 7 %.
      if (ahead == nullptr && open_.open()) prefetch_block(graph.block(open_.next()), graph.shape.stride);
      const std::int8_t* row = graph.row(node);
      float distance;
      std::int32_t product;
      tools.coder.distances(query_.probe, &row, 1, &product, &distance);
      if (keep_(node)) found_.offer(key_of(distance, node));
      draw_bound();
      estimate_neighbours(tools, node, distance, ahead != nullptr ? ahead->take() : nullptr);
    } else {
      if (over_ == Over::kept) {
        hop(tools, node);
      } else {
        measure_neighbours(tools, node);
      }
      draw_bound();
    }
    if (over_ == Over::all) {
      ++expanded_;
      kept_ += keep_(node) ? 1 : 0;
    }
    if (open_.open()) {
      const unsigned char* const next = graph.block(open_.next());
      if (ahead == nullptr || !inlined) {
        prefetch_block(next, graph.shape.stride);
      } else {
        ahead->leave(next, graph.shape.stride);
      }
    }
    return true;
  }
  // One turn more, for what finish() reads.
  if (fetched_ || graph.fine == nullptr) return false;
  fetched_ = true;
  for (std::size_t i = 0; i < found_.size(); ++i) prefetch(graph.fine_row(node_of(found_[i])), tools.coder.width());
  return true;
}

void Walker::estimate_neighbours(const FrozenTools& tools, std::uint32_t node, float distance, const unsigned char* ahead) {
  const FrozenGraph& graph = tools.graph;
  alignas(64) float estimates[BlockShape::kRows];
  for (std::size_t p = 0; p < graph.shape.slots / BlockShape::kRows; ++p) {
    const unsigned char* const part = graph.part(node, p);
    const kernels::Estimate1BitRows rows{part + BlockShape::kCodes, reinterpret_cast<const std::uint16_t*>(part + BlockShape::kAdd),
                                         reinterpret_cast<const std::uint16_t*>(part + BlockShape::kFactor),
                                         p == 0 ? ahead : nullptr, graph.shape.stride};
    const Key limit = std::min(open_.limit(), bound_);
    std::uint32_t below = tools.estimate.block(&table_, &rows, distance, limit == ~Key{0} ? codec::kFar : distance_of(limit), estimates);
    for (; below != 0; below &= below - 1) {
      const auto i = static_cast<std::size_t>(__builtin_ctz(below));
      std::uint32_t neighbour;
      std::memcpy(&neighbour, part + i * sizeof(neighbour), sizeof(neighbour));
      if (neighbour < graph.size && !seen_.holds(neighbour)) open_.add(key_of(estimates[i], neighbour));
    }
    open_.settle();
  }
}

void Walker::draw_bound() {
  if (reach_.gain <= 0.0 || found_.size() < reach_.k) return;
  const double best = static_cast<double>(distance_of(found_[reach_.k - 1])) + away_;
  const double bound = best + reach_.gain * std::max(best, reach_.least) - away_;
  // Beyond float32, as with rows at its ends, nothing is too far.
  bound_ = std::fabs(bound) < static_cast<double>(codec::kFar) ? key_of(static_cast<float>(bound), 0) : ~Key{0};
}

void Walker::measure_neighbours(const FrozenTools& tools, std::uint32_t node) {
  const FrozenGraph& graph = tools.graph;
  const std::uint32_t* links = graph.links(node);
  std::size_t n = 0;
  for (std::size_t i = 0; i < graph.shape.slots && links[i] < graph.size; ++i) {
    fresh_[n] = links[i];
    n += seen_.insert(links[i]) ? 1 : 0;
  }
  measure_fresh(tools, n);
}

void Walker::hop(const FrozenTools& tools, std::uint32_t node) {
  const FrozenGraph& graph = tools.graph;
  const auto links = [&](std::uint32_t of, const auto& visit) {
    for (std::size_t i = 0; i < graph.shape.slots; ++i) {
      const std::uint32_t neighbour = graph.neighbour(of, i);
      if (neighbour >= graph.size) break;
      visit(neighbour);
    }
  };
  const auto fetch = [&](std::uint32_t of) { prefetch(graph.block(of) + graph.shape.row, graph.shape.slots * sizeof(of)); };
  const Hopped found = hop_from(node, keep_, links, [&](std::uint32_t each) { return seen_.insert(each); }, fetch, passed_, fresh_.data());
  expanded_ += found.asked;
  kept_ += found.kept;
  measure_fresh(tools, found.fresh);
}

void Walker::measure_fresh(const FrozenTools& tools, std::size_t n) {
  const FrozenGraph& graph = tools.graph;
  for (std::size_t i = 0; i < n; ++i) rows_[i] = graph.row(fresh_[i]);
  for (std::size_t i = 0; i < std::min(n, kAhead); ++i) prefetch(rows_[i], graph.shape.row);
  for (std::size_t i = 0; i < n; i += kAhead) {
    for (std::size_t j = i + kAhead; j < std::min(n, i + 2 * kAhead); ++j) prefetch(rows_[j], graph.shape.row);
    tools.coder.distances(query_.probe, rows_.data() + i, std::min(kAhead, n - i), products_.data(), distances_.data() + i);
  }
  for (std::size_t i = 0; i < n; ++i) {
    const Key key = key_of(distances_[i], fresh_[i]);
    open_.add(key);
    if (keep_(fresh_[i])) found_.add(key);
  }
  open_.settle();
  found_.settle();
}

double Walker::score_of(const FrozenTools& tools, std::uint32_t node) const {
  return query_.score(tools.coder, tools.graph.params.metric, tools.graph.row(node), tools.graph.fine_row_or_null(node));
}

void Walker::finish(const FrozenTools& tools, std::size_t k) {
  scored_.clear();
  for (std::size_t i = 0; i < found_.size(); ++i) scored_.push_back({score_of(tools, node_of(found_[i])), node_of(found_[i])});
  std::sort(scored_.begin(), scored_.end(), better);
  if (scored_.size() > k) scored_.resize(k);
}

}  // namespace nf::graph
