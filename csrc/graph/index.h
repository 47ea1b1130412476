// The HNSW index: one graph behind one lock. Searches share it, changes are alone.
//
// A caller that holds Python's lock must release it before any of these calls, or a writer that waits here and a reader that waits there
// would wait for ever.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <shared_mutex>
#include <string>
#include <utility>
#include <vector>

#include "graph/graph.h"
#include "graph/scan.h"
#include "graph/scratch.h"
#include "graph/traverse.h"
#include "storage/sections.h"

namespace nf::graph {

enum class Mode {
  automatic,  // the walk, or an exact scan where the scan is no more work or the walk finds too few
  walk,       // the walk only: for tests and measurements of it
  scan,       // exact
};

// One byte or one float per node, for all queries (rows = 1) or one row per query; nodes from `cols` on are not results.
template <typename T>
struct PerNode {
  const T* data = nullptr;
  std::size_t rows = 0;
  std::size_t cols = 0;

  const T* row(std::size_t query) const { return data == nullptr ? nullptr : data + (rows == 1 ? 0 : query) * cols; }
};

struct Request {
  const float* queries = nullptr;  // nq rows of dim finite floats
  std::size_t nq = 0;
  std::size_t k = 10;
  std::size_t ef = 64;
  PerNode<std::uint8_t> allowed;
  PerNode<float> bias;
  Mode mode = Mode::automatic;
  int threads = 1;
};

// Where answers go: nq rows of k nodes (-1 in missing places) and scores (NaN there), and how many places of each row are filled.
struct Answer {
  std::int64_t* nodes;
  float* scores;
  std::int64_t* counts;
};

class Hnsw {
 public:
  // Throws InputError when a parameter is out of range.
  explicit Hnsw(const Params& params);

  // Adds rows (cosine: scaled to norm 1) and makes tombstones of the nodes they replace, at once for every search. Returns the first new node.
  // Throws InputError with the row's number for NaN, infinity or a norm beyond float32; then nothing has changed.
  std::size_t add(const float* rows, std::size_t count, const std::vector<std::uint32_t>& replaced, int threads);
  void remove(const std::vector<std::uint32_t>& nodes);
  // Copies rows as they are stored. Throws InputError when a node does not exist.
  void get(const std::vector<std::uint32_t>& nodes, float* out) const;
  // Throws InputError with the query's number as add() does.
  void search(const Request& request, const Answer& answer) const;

  const Params& params() const { return graph_->params; }
  std::size_t size() const;  // nodes, tombstones too
  std::size_t live() const;
  // Node by node, 1 for a tombstone.
  std::vector<std::uint8_t> tombstones() const;

  // Sections of the graph, then those of the caller, in one container of kind "hnsw".
  void save(const std::string& path, const std::vector<std::pair<std::string, std::string>>& extra) const;
  static std::unique_ptr<Hnsw> load(const storage::MappedFile& file);

 private:
  explicit Hnsw(std::unique_ptr<Graph> graph) : graph_(std::move(graph)) {}

  void search_one(const Request& request, std::size_t at, const score::Query& query, const Space& space,
                  const std::vector<std::uint32_t>* to_scan, std::size_t matches, const Answer& answer) const;

  mutable std::shared_mutex lock_;
  std::unique_ptr<Graph> graph_;
  mutable ScratchList scratches_;
};

}  // namespace nf::graph
