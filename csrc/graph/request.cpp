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

// The high bit of each byte that is not zero.
std::uint64_t marked(std::uint64_t bytes) { return (((bytes & ~kHighBits) + ~kHighBits) | bytes) & kHighBits; }

std::uint64_t eight_bytes(const std::uint8_t* from, std::size_t count) {
  std::uint64_t bytes = 0;
  std::memcpy(&bytes, from, count);
  return bytes;
}

// visit(first, kept) for nodes by eights: bit 8 i + 7 of `kept` says that node first + i may be a result. A filter is looked at once for every
// search, by eight of its bytes at a time: one by one they took 4 ns a node, 0.4 ms of each search among 100,000.
template <class Visit>
void each_eight(const Keep& keep, std::size_t size, const Visit& visit) {
  const std::size_t end = std::min<std::size_t>(size, keep.limit);
  for (std::size_t first = 0; first < end; first += 8) {
    const std::size_t n = std::min<std::size_t>(8, end - first);
    std::uint64_t kept = n == 8 ? kHighBits : kHighBits & ((std::uint64_t{1} << 8 * n) - 1);
    if (keep.allowed != nullptr) kept &= marked(n == 8 ? eight_bytes(keep.allowed + first, 8) : eight_bytes(keep.allowed + first, n));
    if (kept != 0 && keep.deleted != nullptr) kept &= ~marked(n == 8 ? eight_bytes(keep.deleted + first, 8) : eight_bytes(keep.deleted + first, n));
    if (kept != 0) visit(first, kept);
  }
}

}  // namespace

bool scan_pays(double matches, double size, double ef, double step) { return matches * matches <= ef * step * size; }

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
  const Keep all = keep(0);
  matches_ = count(all);
  listed_ = scans(matches_);
  if (listed_) list_ = kept(all);
}

Keep Choice::keep(std::size_t query) const {
  Keep keep;
  if (nodes_.live < nodes_.size) keep.deleted = nodes_.deleted;
  const std::size_t limit = std::min(request_.limit, nodes_.size);
  if (limit < std::max(nodes_.size, nodes_.passable)) keep.limit = limit;
  keep.allowed = row_of(request_.mask, query);
  return keep;
}

bool Choice::scans(std::size_t matches) const {
  if (request_.bias.data != nullptr || request_.mode == Mode::scan) return true;
  if (request_.mode != Mode::automatic) return false;
  const double step = request_.step > 0.0 ? request_.step : static_cast<double>(nodes_.m);
  return scan_pays(static_cast<double>(matches), static_cast<double>(nodes_.size), static_cast<double>(std::max(request_.ef, request_.k)), step);
}

const std::vector<std::uint32_t>& Choice::list(std::size_t query, std::vector<std::uint32_t>& own) const {
  if (listed_) return list_;
  own = kept(keep(query));
  return own;
}

const float* Choice::bias(std::size_t query) const { return row_of(request_.bias, query); }

std::size_t Choice::count(const Keep& keep) const {
  if (keep.allowed == nullptr && request_.limit >= nodes_.size) return nodes_.live;
  std::size_t count = 0;
  each_eight(keep, nodes_.size, [&](std::size_t, std::uint64_t kept) { count += static_cast<std::size_t>(__builtin_popcountll(kept)); });
  return count;
}

std::vector<std::uint32_t> Choice::kept(const Keep& keep) const {
  std::vector<std::uint32_t> nodes;
  nodes.reserve(shared_ ? matches_ : 0);
  each_eight(keep, nodes_.size, [&](std::size_t first, std::uint64_t kept) {
    for (; kept != 0; kept &= kept - 1) nodes.push_back(static_cast<std::uint32_t>(first + static_cast<std::size_t>(__builtin_ctzll(kept)) / 8));
  });
  return nodes;
}

}  // namespace nf::graph
