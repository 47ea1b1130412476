// The HNSW index: a graph, one writer at a time, and searches that wait for nobody. A change is visible as a whole, in the next snapshot
// (graph/snapshot.h); whoever holds an older one goes on seeing that.
//
// A caller that holds Python's lock must release it before any call that changes the index, or a writer that waits here and one that waits
// there would wait for ever.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/view.h"
#include "graph/blocks.h"
#include "graph/graph.h"
#include "graph/request.h"
#include "graph/scratch.h"
#include "graph/skim.h"
#include "graph/snapshot.h"
#include "graph/stats.h"
#include "storage/sections.h"

namespace nf::graph {

class Frozen;

// What one thread needs to search.
struct SearchScratch {
  Scratch walk;
  Skim skim;
  Bits bits;
};

class Hnsw {
 public:
  // Throws InputError when a parameter is out of range.
  explicit Hnsw(const Params& params);

  // Adds rows (cosine: scaled to norm 1) and deletes `dead` nodes (graph/repair.h), as one step for every search.
  // Throws InputError for NaN, infinity or a norm beyond float32 (with the row's number) and for a dead node that does not exist; nothing has
  // changed then.
  void append(const float* rows, std::size_t count, const std::vector<std::uint64_t>& dead, int threads);
  // Throws what append() would throw for these rows.
  void check(const float* rows, std::size_t count) const;
  // The rows and tombstones of this moment.
  std::shared_ptr<const Snapshot> snapshot() const { return published_.get(); }

  // Copies rows as they are stored. Throws InputError when a node does not exist.
  void get(const Snapshot& at, const std::vector<std::uint64_t>& nodes, float* out) const;
  // As score::gather, over all nodes.
  void score(const Snapshot& at, MatrixView<float> queries, MatrixView<std::int64_t> nodes, int threads, float* out) const;
  // Throws InputError with the query's number as append() does.
  void search(const Snapshot& at, const Request& request, const Answer& answer) const;

  const Params& params() const { return graph_->params; }
  // See graph::walk_nodes; measured at shares of 0.05 and 0.02 (docs/log.md).
  static constexpr double kHopNodes = 12.0;

  // Makes every live node reachable (graph/reach.h); append() does so whenever the index has doubled, or as many rows were deleted as live.
  void connect();
  // A copy without the deleted nodes, numbered anew in the same order; this index stays, with mended lists.
  std::unique_ptr<Hnsw> consolidated(int threads);
  std::size_t unreached() const;
  Stats stats() const;
  // The graph as it is now, laid out for search alone.
  std::unique_ptr<Frozen> freeze(Layout layout, int threads) const;

  // Writes the container: the sections already in `writer`, then those of the graph.
  void save(storage::Writer& writer, const std::string& path) const;
  static std::unique_ptr<Hnsw> load(const storage::MappedFile& file);

 private:
  explicit Hnsw(std::unique_ptr<Graph> graph) : graph_(std::move(graph)) { publish(graph_->size()); }

  // Lets searches see nodes 0..size-1, and pass through all.
  void publish(std::size_t size);
  void reconnect();
  void bury(const std::vector<std::uint64_t>& dead, int threads);

  mutable std::mutex writing_;
  std::unique_ptr<Graph> graph_;
  Published published_;
  mutable ScratchList scratches_;  // the writer's
  mutable Lending<SearchScratch> searching_;
  std::size_t connected_ = 0;          // nodes when connect() last ran
  std::size_t buried_ = 0;             // nodes deleted since then
  std::vector<std::uint64_t> failed_;  // nodes of an add that failed, to be deleted with the next snapshot
};

// The nodes of a snapshot that are not deleted, rising.
std::vector<std::uint64_t> live_nodes(const Snapshot& at);

// An index at one moment, as a caller holds it between calls.
struct Sight {
  const Hnsw* index;
  std::shared_ptr<const Snapshot> at;

  Sight(const Hnsw& of) : index(&of), at(of.snapshot()) {}

  std::size_t size() const { return at->size; }
  std::size_t live() const { return at->live; }
  std::vector<std::uint64_t> live_nodes() const { return graph::live_nodes(*at); }
  const Params& params() const { return index->params(); }
  void get(const std::vector<std::uint64_t>& nodes, float* out) const { index->get(*at, nodes, out); }
  void score(MatrixView<float> queries, MatrixView<std::int64_t> nodes, int threads, float* out) const {
    index->score(*at, queries, nodes, threads, out);
  }
  void search(const Request& request, const Answer& answer) const { index->search(*at, request, answer); }
};

}  // namespace nf::graph
