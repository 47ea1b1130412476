// The HNSW index: one graph behind one lock. Searches share it, changes are alone.
//
// A caller that holds Python's lock must release it before any of these calls, or a writer that waits here and a reader that waits there
// would wait for ever.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/view.h"
#include "graph/blocks.h"
#include "graph/graph.h"
#include "graph/request.h"
#include "graph/scratch.h"
#include "parallel/rwlock.h"
#include "storage/sections.h"

namespace nf::graph {

class Frozen;

class Hnsw {
 public:
  // Throws InputError when a parameter is out of range.
  explicit Hnsw(const Params& params);

  // Adds rows (cosine: scaled to norm 1) and makes tombstones of `dead` nodes, as one step for every search.
  // Throws InputError for NaN, infinity or a norm beyond float32 (with the row's number) and for a dead node that does not exist; nothing has
  // changed then.
  void append(const float* rows, std::size_t count, const std::vector<std::uint64_t>& dead, int threads);
  // Throws what append() would throw for these rows.
  void check(const float* rows, std::size_t count) const;
  // Copies rows as they are stored. Throws InputError when a node does not exist.
  void get(const std::vector<std::uint64_t>& nodes, float* out) const;
  // As score::gather, over all nodes.
  void score(MatrixView<float> queries, MatrixView<std::int64_t> nodes, int threads, float* out) const;
  // Throws InputError with the query's number as append() does.
  void search(const Request& request, const Answer& answer) const;

  const Params& params() const { return graph_->params; }
  std::size_t size() const;  // nodes, tombstones too
  std::size_t live() const;
  std::vector<std::uint64_t> live_nodes() const;

  // Makes every node reachable (graph/reach.h); append() does so whenever the index has doubled.
  void connect();
  std::size_t unreached() const;
  // The graph as it is now, laid out for search alone.
  std::unique_ptr<Frozen> freeze(Layout layout, int threads) const;

  // Writes the container: the sections already in `writer`, then those of the graph.
  void save(storage::Writer& writer, const std::string& path) const;
  static std::unique_ptr<Hnsw> load(const storage::MappedFile& file);

 private:
  explicit Hnsw(std::unique_ptr<Graph> graph) : graph_(std::move(graph)) {}

  mutable parallel::RwLock lock_;
  std::unique_ptr<Graph> graph_;
  mutable ScratchList scratches_;
  std::size_t connected_ = 0;  // nodes when connect() last ran
};

}  // namespace nf::graph
