#include "graph/index.h"

#include <algorithm>
#include <mutex>
#include <shared_mutex>

#include "base/status.h"
#include "graph/build.h"
#include "graph/frozen.h"
#include "graph/reach.h"
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
std::vector<float> prepare(const float* rows, std::size_t count, const Params& params) {
  std::vector<float> stored(rows, rows + count * params.dim);
  for (std::size_t i = 0; i < count; ++i) {
    const float* row = rows + i * params.dim;
    const double norm = score::checked_norm(row, params.dim, "vectors", i);
    if (params.metric == Metric::cosine) score::normalize(row, params.dim, norm, stored.data() + i * params.dim);
  }
  return stored;
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
  graph_ = std::make_unique<Graph>(params);
}

void Hnsw::append(const float* rows, std::size_t count, const std::vector<std::uint64_t>& dead, int threads) {
  const std::vector<float> prepared = prepare(rows, count, params());
  const std::unique_lock lock(lock_);
  Graph& graph = *graph_;
  const std::size_t first = graph.size();
  for (const std::uint64_t node : dead) check_node(node, first);
  graph.append(prepared.data(), count);
  std::size_t linked = first;
  try {
    link_nodes(graph, first, threads, scratches_, linked);
  } catch (...) {
    // What is linked cannot be taken back; as tombstones these nodes are in no answer, and the add has not happened.
    graph.truncate(linked);
    for (std::size_t node = first; node < linked; ++node) graph.deleted[node] = 1;
    graph.live -= linked - first;
    throw;
  }
  if (graph.size() >= 2 * std::max(connected_, kLeastConnected)) {
    graph::connect(graph, scratches_);
    connected_ = graph.size();
  }
  for (const std::uint64_t node : dead) {
    graph.live -= graph.deleted[node] == 0 ? 1 : 0;
    graph.deleted[node] = 1;
  }
}

void Hnsw::check(const float* rows, std::size_t count) const {
  const std::size_t dim = params().dim;
  for (std::size_t i = 0; i < count; ++i) score::checked_norm(rows + i * dim, dim, "vectors", i);
}

void Hnsw::get(const std::vector<std::uint64_t>& nodes, float* out) const {
  const std::shared_lock lock(lock_);
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    check_node(nodes[i], graph_->size());
    const float* row = graph_->rows[nodes[i]];
    std::copy(row, row + graph_->params.dim, out + i * graph_->params.dim);
  }
}

void Hnsw::score(MatrixView<float> queries, MatrixView<std::int64_t> nodes, int threads, float* out) const {
  const std::shared_lock lock(lock_);
  score::gather(params().metric, GraphRows(*graph_), score::Chosen{queries, nodes, graph_->size(), threads}, out);
}

void Hnsw::connect() {
  const std::unique_lock lock(lock_);
  graph::connect(*graph_, scratches_);
  connected_ = graph_->size();
}

std::size_t Hnsw::unreached() const {
  const std::shared_lock lock(lock_);
  return count_unreached(*graph_);
}

std::unique_ptr<Frozen> Hnsw::freeze(Layout layout, int threads) const {
  const std::shared_lock lock(lock_);
  return std::make_unique<Frozen>(*graph_, layout, threads);
}

std::size_t Hnsw::size() const {
  const std::shared_lock lock(lock_);
  return graph_->size();
}

std::size_t Hnsw::live() const {
  const std::shared_lock lock(lock_);
  return graph_->live;
}

std::vector<std::uint64_t> Hnsw::live_nodes() const {
  const std::shared_lock lock(lock_);
  std::vector<std::uint64_t> nodes;
  nodes.reserve(graph_->live);
  for (std::size_t node = 0; node < graph_->size(); ++node) {
    if (graph_->deleted[node] == 0) nodes.push_back(node);
  }
  return nodes;
}

}  // namespace nf::graph
