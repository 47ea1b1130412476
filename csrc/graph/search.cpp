#include <algorithm>

#include "base/status.h"
#include "graph/index.h"
#include "graph/scan.h"
#include "graph/traverse.h"
#include "parallel/pool.h"
#include "score/gather.h"

namespace nf::graph {
namespace {

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
  for (std::size_t i = 0; i < n; ++i) scratch.scored.push_back({exact_score(graph, query, best[i].node), best[i].node});
  std::sort(scratch.scored.begin(), scratch.scored.end(), better);
}

// What distances are made with, of rows and of codes, and how far walks go: chosen once per job, on the caller's thread.
struct Tools {
  Space space;
  codec::Coder coder;
  std::size_t passable;
  std::uint32_t entry;
  kernels::InsertKey insert;
};

void walk_one(const Graph& graph, const Tools& tools, const Request& request, const Allowed& allowed, bool hops, const score::Query& query, std::size_t at,
              Scratch& scratch) {
  scratch.scored.clear();
  if (tools.entry == kNone) return;
  const From from{tools.coder, probe_of(tools.coder, query.scan, scratch), tools.passable, tools.entry, request.skipped(at)};
  const Candidate start = descend(graph, from, 0, scratch);
  const std::size_t ef = std::max(request.ef, request.k), wide = static_cast<std::size_t>(kHopWidth * static_cast<double>(ef));
  scratch.best.assign(1, start);
  if (hops) search_kept(graph, from, wide, allowed.keep, scratch);
  // Where the kept nodes lie away from the query, a walk over them ends before it has met them: 0.83 of the right ones for a fiftieth of the rows
  // in one corner, where the walk over all nodes goes on until it has ef.
  if (!hops || scratch.best.size() < std::min(wide, allowed.matches)) {
    scratch.best.assign(1, start);
    search_layer(graph, from, 0, ef, allowed.keep, scratch);
  }
  take_best(graph, tools.space, query, request.k, scratch);
}

void search_one(const Graph& graph, const Tools& tools, const Request& request, const Choice& choice, const std::vector<score::Query>& queries, std::size_t at,
                SearchScratch& scratch, const Answer& answer) {
  const Allowed allowed = choice.allowed(at, scratch.bits);
  bool scans = choice.scans(allowed.matches);
  if (!scans) {
    walk_one(graph, tools, request, allowed, choice.hops(allowed.matches), queries[at], at, scratch.walk);
    scans = request.mode == Mode::automatic && scratch.walk.scored.size() < std::min(request.k, allowed.matches);
  }
  if (!scans) {
    answer.write(scratch.walk.scored, at, request.k);
    return;
  }
  std::vector<std::uint32_t> own;
  scan(graph, tools.coder, queries, at, at + 1, choice, choice.list(allowed, own), request.k, scratch.skim, answer);
}

}  // namespace

void Hnsw::search(const Snapshot& at, const Request& request, const Answer& answer) const {
  if (request.nq == 0) return;
  std::vector<float> unit;
  const std::vector<score::Query> queries = plan(request, params(), unit);
  const Graph& graph = *graph_;
  // Results are those of the snapshot, however old; the way to them leads through the graph as it is now.
  const std::shared_ptr<const Snapshot> now = published_.get();
  const Tools tools{Space(graph.params), graph.coder(), now->passable, now->entry, kernels::insert_key()};
  const Choice choice(request, Nodes{at.size, at.live, at.deleted.data(), graph.params.m, kHopNodes, now->passable});
  raise_if_bad(parallel::parallel_for(request.nq, request.threads, [&](std::size_t begin, std::size_t end, std::size_t) {
    auto scratch = searching_.borrow();
    if (const auto* const shared = choice.shared_scan()) {
      for (std::size_t query = begin; query < end; query += Skim::kQueries) {
        scan(graph, tools.coder, queries, query, std::min(end, query + Skim::kQueries), choice, *shared, request.k, scratch->skim, answer);
      }
      return;
    }
    scratch->walk.pool.use(tools.insert);
    scratch->walk.kept.use(tools.insert);
    for (std::size_t query = begin; query < end; ++query) search_one(graph, tools, request, choice, queries, query, *scratch, answer);
  }));
}

}  // namespace nf::graph
