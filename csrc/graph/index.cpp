#include "graph/index.h"

#include <algorithm>
#include <mutex>

#include "base/status.h"
#include "graph/build.h"
#include "graph/frozen.h"
#include "graph/reach.h"
#include "graph/repair.h"
#include "parallel/pool.h"
#include "score/door.h"
#include "score/gather.h"

namespace nf::graph {
namespace {

// Reachability is looked at from twice so many rows on: walking all links then costs a hundredth of having made them.
constexpr std::size_t kLeastConnected = 512;

void check_range(const char* name, std::uint64_t value, std::uint64_t least, std::uint64_t most) {
  if (value >= least && value <= most) return;
  throw InputError(std::string(name) + ": " + std::to_string(value) + " given, " + std::to_string(least) + " to " + std::to_string(most) +
                   " expected");
}

void check_node(std::uint64_t node, std::size_t size) {
  if (node >= size) throw InputError("slot " + std::to_string(node) + " given, the index has " + std::to_string(size));
}

// The rows as they are stored: cosine scales them to norm 1.
std::vector<float> prepare(const float* rows, std::size_t count, const Params& params, int threads) {
  std::vector<float> stored(rows, rows + count * params.dim);
  raise_if_bad(parallel::parallel_for(count, threads, [&](std::size_t begin, std::size_t end, std::size_t) {
    for (std::size_t i = begin; i < end; ++i) {
      const float* row = rows + i * params.dim;
      const double norm = score::checked_norm(row, params.dim, "vectors", i);
      if (params.metric == Metric::cosine) score::normalize(row, params.dim, norm, stored.data() + i * params.dim);
    }
  }));
  return stored;
}

// The live nodes and their links, numbered anew in the same order. No list of a live node may name a deleted one.
std::unique_ptr<Graph> without_deleted(const Graph& graph) {
  auto made = std::make_unique<Graph>(graph.params);
  std::vector<std::uint32_t> kept, number(graph.size(), kNone);
  std::vector<std::uint8_t> levels;
  for (std::uint32_t node = 0; node < graph.size(); ++node) {
    if (graph.deleted[node]) continue;
    number[node] = static_cast<std::uint32_t>(kept.size());
    kept.push_back(node);
    levels.push_back(graph.levels[node]);
  }
  made->extend(levels);
  std::vector<std::uint32_t> list;
  for (std::uint32_t node = 0; node < kept.size(); ++node) {
    std::copy(graph.rows[kept[node]], graph.rows[kept[node]] + graph.params.dim, made->rows[node]);
    for (unsigned layer = 0; layer <= levels[node]; ++layer) {
      const Link* links = graph.links(kept[node], layer);
      list.clear();
      for (std::uint32_t i = 0; i < graph.capacity(layer) && links[i] != kNone; ++i) list.push_back(number[links[i]]);
      made->write_links(node, layer, list);
    }
  }
  made->set_centre();
  made->encode(0);
  made->entry = graph.entry == kNone ? kNone : number[graph.entry];
  made->born = graph.born;
  return made;
}

class GraphRows : public score::RowSource {
 public:
  explicit GraphRows(const Graph& graph) : graph_(graph) {}
  const float* row(std::uint64_t node, float*) const override { return graph_.rows[node]; }
  void prefetch(std::uint64_t node) const override { score::prefetch_lines(graph_.rows[node], graph_.params.dim * sizeof(float)); }

 private:
  const Graph& graph_;
};

}  // namespace

Hnsw::Hnsw(const Params& params) {
  check_range("dim", params.dim, 1, kLargestDim);
  check_range("M", params.m, kLeastM, kLargestM);
  check_range("ef_construction", params.ef_construction, 1, kLargestEf);
  if (!(params.alpha >= kLeastAlpha && params.alpha <= kLargestAlpha)) {
    throw InputError("alpha: " + std::to_string(params.alpha) + " given, 1 to 4 expected");
  }
  graph_ = std::make_unique<Graph>(params);
}

void Hnsw::publish(std::size_t size) {
  auto next = std::make_shared<Snapshot>();
  graph_->deleted.mark(failed_);
  failed_.clear();
  next->size = size;
  next->live = size - graph_->deleted.count();
  next->deleted = graph_->deleted.share();
  next->passable = graph_->size();
  next->entry = graph_->entry;
  published_.set(std::move(next));
}

void Hnsw::append(const float* rows, std::size_t count, const std::vector<std::uint64_t>& dead, int threads) {
  const std::vector<float> prepared = prepare(rows, count, params(), threads);
  const std::lock_guard lock(writing_);
  Graph& graph = *graph_;
  const std::size_t first = graph.size();
  for (const std::uint64_t node : dead) check_node(node, first);
  failed_.reserve(failed_.size() + count);
  graph.append(prepared.data(), count);
  try {
    if (count != 0) publish(first);
    link_nodes(graph, first, threads, scratches_);
    if (graph.size() >= 2 * std::max(connected_, kLeastConnected)) reconnect();
    if (graph.deleted.mark(dead) != 0) bury(dead, threads);
    publish(graph.size());
  } catch (...) {
    // What is linked cannot be taken back; as tombstones these nodes are in no answer, and the add has not happened.
    for (std::size_t node = first; node < graph.size(); ++node) failed_.push_back(node);
    throw;
  }
}

void Hnsw::check(const float* rows, std::size_t count) const {
  const std::size_t dim = params().dim;
  for (std::size_t i = 0; i < count; ++i) score::checked_norm(rows + i * dim, dim, "vectors", i);
}

void Hnsw::get(const Snapshot& at, const std::vector<std::uint64_t>& nodes, float* out) const {
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    check_node(nodes[i], at.size);
    const float* row = graph_->rows[nodes[i]];
    std::copy(row, row + params().dim, out + i * params().dim);
  }
}

void Hnsw::score(const Snapshot& at, MatrixView<float> queries, MatrixView<std::int64_t> nodes, int threads, float* out) const {
  score::gather(params().metric, GraphRows(*graph_), score::Chosen{queries, nodes, at.size, threads}, out);
}

void Hnsw::reconnect() {
  graph::connect(*graph_, scratches_);
  connected_ = graph_->size();
  buried_ = 0;
}

// A delete may cut the only way to a row that lives on: looked at when as many were deleted as live.
void Hnsw::bury(const std::vector<std::uint64_t>& dead, int threads) {
  unlink(*graph_, dead, threads, scratches_);
  buried_ += dead.size();
  if (buried_ >= std::max(graph_->live(), kLeastConnected)) reconnect();
}

void Hnsw::connect() {
  const std::lock_guard lock(writing_);
  reconnect();
}

std::unique_ptr<Hnsw> Hnsw::consolidated(int threads) {
  const std::lock_guard lock(writing_);
  unlink_all(*graph_, threads, scratches_);
  std::unique_ptr<Hnsw> made(new Hnsw(without_deleted(*graph_)));
  made->connect();
  return made;
}

std::size_t Hnsw::unreached() const {
  const std::lock_guard lock(writing_);
  return count_unreached(*graph_);
}

Stats Hnsw::stats() const {
  const std::lock_guard lock(writing_);
  return stats_of(*graph_);
}

std::unique_ptr<Frozen> Hnsw::freeze(Layout layout, int threads) const {
  const std::lock_guard lock(writing_);
  return std::make_unique<Frozen>(*graph_, layout, threads);
}

std::vector<std::uint64_t> live_nodes(const Snapshot& at) {
  std::vector<std::uint64_t> nodes;
  nodes.reserve(at.live);
  for (std::size_t node = 0; node < at.size; ++node) {
    if (!at.deleted[node]) nodes.push_back(node);
  }
  return nodes;
}

}  // namespace nf::graph
