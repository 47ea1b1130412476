#include "graph/request.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "score/door.h"

namespace nf::graph {
namespace {

template <typename T>
const T* row_of(const MatrixView<T>& view, std::size_t query) {
  return view.data == nullptr ? nullptr : view.row(view.rows == 1 ? 0 : query);
}

constexpr std::uint64_t kHighBits = 0x8080808080808080u;

// Times the lowest bits of eight bytes: they stand side by side in the highest byte.
constexpr std::uint64_t kGatherBits = 0x0102040810204080u;

// The high bit of each byte that is not zero.
std::uint64_t marked(std::uint64_t bytes) { return (((bytes & ~kHighBits) + ~kHighBits) | bytes) & kHighBits; }

std::uint64_t eight_bytes(const std::uint8_t* from, std::size_t count) {
  std::uint64_t bytes = 0;
  std::memcpy(&bytes, from, count);
  return bytes;
}

// visit(first, kept) for nodes by eights: bit i of `kept` says that node first + i may be a result. A filter is looked at once for every search, by
// eight of its bytes at a time: one by one they took 4 ns a node, 0.4 ms of each search among 100,000.
template <class Visit>
void each_eight(const std::uint8_t* allowed, const std::uint8_t* deleted, std::size_t end, const Visit& visit) {
  for (std::size_t first = 0; first < end; first += 8) {
    const std::size_t n = std::min<std::size_t>(8, end - first);
    std::uint64_t kept = n == 8 ? kHighBits : kHighBits & ((std::uint64_t{1} << 8 * n) - 1);
    if (allowed != nullptr) kept &= marked(n == 8 ? eight_bytes(allowed + first, 8) : eight_bytes(allowed + first, n));
    if (kept != 0 && deleted != nullptr) kept &= ~marked(n == 8 ? eight_bytes(deleted + first, 8) : eight_bytes(deleted + first, n));
    if (kept != 0) visit(first, (kept >> 7) * kGatherBits >> 56);
  }
}

}  // namespace

double walk_nodes(double matches, double size, double ef, double hop) {
  return matches > 0.0 ? ef * (hops_pay(matches, size, hop) ? hop : size / matches) : 0.0;
}

bool scan_pays(double matches, double size, double ef, double step, double hop) { return matches <= walk_nodes(matches, size, ef, hop) * step; }

void Answer::write(const std::vector<Scored>& scored, std::size_t query, std::size_t k) const {
  for (std::size_t i = 0; i < k; ++i) {
    const bool filled = i < scored.size();
    nodes[query * k + i] = filled ? static_cast<std::int64_t>(scored[i].node) : -1;
    scores[query * k + i] = filled ? static_cast<float>(scored[i].score) : std::numeric_limits<float>::quiet_NaN();
  }
  counts[query] = static_cast<std::int64_t>(scored.size());
}

void Answer::write(const std::vector<score::Candidate>& best, std::size_t query, std::size_t k) const {
  std::vector<Scored> scored;
  scored.reserve(best.size());
  for (const score::Candidate& each : best) scored.push_back({each.lower, static_cast<std::uint32_t>(each.slot)});
  write(scored, query, k);
}

std::vector<score::Query> plan(const Request& request, const Params& params, std::vector<float>& unit) {
  const bool cosine = params.metric == Metric::cosine;
  if (cosine) unit.resize(request.nq * params.dim);
  std::vector<score::Query> queries(request.nq);
  for (std::size_t i = 0; i < request.nq; ++i) {
    const float* row = request.queries + i * params.dim;
    queries[i].raw = queries[i].scan = row;
    queries[i].norm = score::checked_norm(row, params.dim, "queries", i);
    if (!cosine) continue;
    float* scaled = unit.data() + i * params.dim;
    score::normalize(row, params.dim, queries[i].norm, scaled);
    queries[i].scan = scaled;
  }
  return queries;
}

Choice::Choice(const Request& request, const Nodes& nodes) : request_(request), nodes_(nodes), shared_(request.mask.rows <= 1) {
  if (!shared_) return;
  all_ = make_allowed(0, bits_);
  listed_ = scans(all_.matches);
  if (listed_) list_ = listed(all_.keep);
}

Allowed Choice::make_allowed(std::size_t query, Bits& own) const {
  const std::size_t limit = std::min(request_.limit, nodes_.size);
  const std::uint8_t* const deleted = nodes_.live < nodes_.size ? nodes_.deleted : nullptr;
  const std::uint8_t* const mask = row_of(request_.mask, query);
  Allowed allowed;
  if (limit < std::max(nodes_.size, nodes_.passable)) allowed.keep.limit = limit;
  if (mask == nullptr) {
    allowed.keep.deleted = deleted;
    allowed.matches = nodes_.live;
    if (limit == nodes_.size) return allowed;
    allowed.matches = 0;
    each_eight(nullptr, deleted, limit, [&](std::size_t, std::uint64_t kept) { allowed.matches += static_cast<std::size_t>(__builtin_popcountll(kept)); });
    return allowed;
  }
  own.words.assign(limit / 64 + 1, 0);
  own.count = 0;
  each_eight(mask, deleted, limit, [&](std::size_t first, std::uint64_t kept) {
    own.words[first / 64] |= kept << first % 64;
    own.count += static_cast<std::size_t>(__builtin_popcountll(kept));
  });
  allowed.keep.limit = limit;
  allowed.keep.bits = own.words.data();
  allowed.matches = own.count;
  return allowed;
}

bool Choice::scans(std::size_t matches) const {
  if (request_.bias.data != nullptr || request_.mode == Mode::scan) return true;
  if (request_.mode != Mode::automatic) return false;
  const double step = request_.step > 0.0 ? request_.step : static_cast<double>(nodes_.m);
  return scan_pays(static_cast<double>(matches), static_cast<double>(nodes_.size), static_cast<double>(std::max(request_.ef, request_.k)), step,
                   nodes_.hop);
}

bool Choice::hops(std::size_t matches) const {
  if (request_.mode != Mode::automatic) return request_.mode == Mode::hop && matches < nodes_.live;
  return hops_pay(static_cast<double>(matches), static_cast<double>(nodes_.size), nodes_.hop);
}

const std::vector<std::uint32_t>& Choice::list(const Allowed& allowed, std::vector<std::uint32_t>& own) const {
  if (listed_) return list_;
  own = listed(allowed.keep);
  return own;
}

const float* Choice::bias(std::size_t query) const { return row_of(request_.bias, query); }

std::vector<std::uint32_t> Choice::listed(const Keep& keep) const {
  std::vector<std::uint32_t> nodes;
  const std::size_t end = std::min(nodes_.size, keep.limit);
  const auto add = [&](std::size_t first, std::uint64_t kept) {
    for (; kept != 0; kept &= kept - 1) nodes.push_back(static_cast<std::uint32_t>(first + static_cast<std::size_t>(__builtin_ctzll(kept))));
  };
  if (keep.bits == nullptr) {
    each_eight(nullptr, keep.deleted, end, add);
  } else {
    for (std::size_t first = 0; first < end; first += 64) add(first, keep.bits[first / 64]);
  }
  return nodes;
}

}  // namespace nf::graph
