#include <algorithm>
#include <limits>
#include <shared_mutex>

#include "base/status.h"
#include "graph/index.h"
#include "parallel/pool.h"
#include "score/door.h"
#include "score/gather.h"

namespace nf::graph {
namespace {

// Checks the queries and, for cosine, scales them to norm 1 in `unit`.
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

template <typename T>
const T* row_of(const MatrixView<T>& view, std::size_t query) {
  return view.data == nullptr ? nullptr : view.row(view.rows == 1 ? 0 : query);
}

Keep keep_of(const Graph& graph, const Request& request, std::size_t query) {
  Keep keep;
  if (graph.live < graph.size()) keep.deleted = graph.deleted.data();
  if (request.limit < graph.size()) keep.limit = request.limit;
  keep.allowed = row_of(request.mask, query);
  return keep;
}

std::vector<std::uint32_t> kept_nodes(const Graph& graph, const Keep& keep) {
  std::vector<std::uint32_t> nodes;
  for (std::uint32_t node = 0; node < std::min(graph.size(), keep.limit); ++node) {
    if (keep(node)) nodes.push_back(node);
  }
  return nodes;
}

std::size_t count_kept(const Graph& graph, const Keep& keep) {
  if (keep.allowed == nullptr && keep.limit == kNone) return graph.live;
  std::size_t count = 0;
  for (std::uint32_t node = 0; node < std::min(graph.size(), keep.limit); ++node) count += keep(node) ? 1 : 0;
  return count;
}

// A walk that needs ef results, of which only matches / size are kept, expands about ef * size / matches nodes and measures some M new
// distances at each; a scan measures `matches`. The scan, being exact, wins ties.
bool scan_is_no_more_work(const Graph& graph, std::size_t matches, std::size_t ef) {
  const auto kept = static_cast<double>(matches);
  return kept * kept <= static_cast<double>(ef) * graph.params.m * static_cast<double>(graph.size());
}

bool scans(const Graph& graph, const Request& request, std::size_t matches) {
  if (request.bias.data != nullptr || request.mode == Mode::scan) return true;
  return request.mode == Mode::automatic && scan_is_no_more_work(graph, matches, std::max(request.ef, request.k));
}

// What the codes leave out may change places among the nearest: so many more than k are looked at again.
std::size_t to_measure(std::size_t k) { return k + k / 2 + 6; }

// The k nearest of scratch.best by their rows, scored in float64.
void take_best(const Graph& graph, const Space& space, const score::Query& query, std::size_t k, Scratch& scratch) {
  auto& best = scratch.best;
  best.resize(std::min(best.size(), to_measure(k)));
  scratch.reserve_rows(best.size());
  for (std::size_t i = 0; i < best.size(); ++i) {
    scratch.rows[i] = graph.rows[best[i].node];
    score::prefetch_lines(scratch.rows[i], graph.params.dim * sizeof(float));
  }
  space.distances(query.scan, scratch.rows.data(), best.size(), scratch.distances.data());
  for (std::size_t i = 0; i < best.size(); ++i) best[i].distance = scratch.distances[i];
  const std::size_t n = std::min(k, best.size());
  std::partial_sort(best.begin(), best.begin() + static_cast<std::ptrdiff_t>(n), best.end(), nearer);
  scratch.scored.clear();
  for (std::size_t i = 0; i < n; ++i) scratch.scored.push_back({exact_score(graph, query, best[i].node), best[i].node});
  std::sort(scratch.scored.begin(), scratch.scored.end(), better);
}

void write_answer(const std::vector<Scored>& scored, std::size_t query, std::size_t k, const Answer& answer) {
  for (std::size_t i = 0; i < k; ++i) {
    const bool filled = i < scored.size();
    answer.nodes[query * k + i] = filled ? static_cast<std::int64_t>(scored[i].node) : -1;
    answer.scores[query * k + i] = filled ? static_cast<float>(scored[i].score) : std::numeric_limits<float>::quiet_NaN();
  }
  answer.counts[query] = static_cast<std::int64_t>(scored.size());
}

}  // namespace

// `matches`: how many nodes may be results; `to_scan`: these nodes where the caller has listed them for all queries, else nullptr.
void Hnsw::search_one(const Request& request, std::size_t at, const score::Query& query, const Tools& tools,
                      const std::vector<std::uint32_t>* to_scan, std::size_t matches, const Answer& answer) const {
  const Graph& graph = *graph_;
  auto scratch = scratches_.borrow();
  const Keep keep = keep_of(graph, request, at);
  scratch->scored.clear();
  const bool exact = scans(graph, request, matches);
  if (!exact && graph.entry != kNone) {
    const From from{tools.coder, probe_of(tools.coder, query.scan, *scratch)};
    const Candidate start = descend(graph, from, 0, *scratch);
    scratch->best.assign(1, start);
    search_layer(graph, from, 0, std::max(request.ef, request.k), keep, *scratch);
    take_best(graph, tools.space, query, request.k, *scratch);
  }
  const bool too_few = scratch->scored.size() < std::min(request.k, matches);
  if (exact || (too_few && request.mode == Mode::automatic)) {
    std::vector<std::uint32_t> own;
    if (to_scan == nullptr) own = kept_nodes(graph, keep);
    scan(graph, tools.space, query, to_scan != nullptr ? *to_scan : own, row_of(request.bias, at), request.k, *scratch);
  }
  write_answer(scratch->scored, at, request.k, answer);
}

void Hnsw::search(const Request& request, const Answer& answer) const {
  if (request.nq == 0) return;
  std::vector<float> unit;
  const std::vector<score::Query> queries = plan(request, params(), unit);
  const std::shared_lock lock(lock_);
  const Graph& graph = *graph_;
  const Tools tools{Space(graph.params), graph.coder()};
  // One filter for all queries is counted, and listed when it will be scanned, once.
  const bool shared = request.mask.rows <= 1;
  std::size_t matches = 0;
  std::vector<std::uint32_t> listed;
  const std::vector<std::uint32_t>* to_scan = nullptr;
  if (shared) {
    const Keep keep = keep_of(graph, request, 0);
    matches = count_kept(graph, keep);
    if (scans(graph, request, matches)) {
      listed = kept_nodes(graph, keep);
      to_scan = &listed;
    }
  }
  raise_if_bad(parallel::parallel_for(request.nq, request.threads, [&](std::size_t begin, std::size_t end, std::size_t) {
    for (std::size_t query = begin; query < end; ++query) {
      const std::size_t count = shared ? matches : count_kept(graph, keep_of(graph, request, query));
      search_one(request, query, queries[query], tools, to_scan, count, answer);
    }
  }));
}

}  // namespace nf::graph
