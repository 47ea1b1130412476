// A search as the caller asks for it, and what every kind of graph makes of it before the first step: checked queries, which nodes may be
// results, whether they are scanned instead of searched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/view.h"
#include "graph/graph.h"
#include "graph/scratch.h"
#include "score/plan.h"

namespace nf::graph {

enum class Mode {
  automatic,  // the walk, or an exact scan where the scan is no more work or the walk finds too few
  walk,       // the walk only: for tests and measurements of it
  scan,       // exact
};

struct Request {
  const float* queries = nullptr;  // nq rows of dim finite floats
  std::size_t nq = 0;
  std::size_t k = 10;
  std::size_t ef = 64;
  std::size_t limit = kNone;       // nodes from here on are not results
  MatrixView<std::uint8_t> mask;   // (1 or nq, limit), zero: not a result; or none
  MatrixView<float> bias;          // (1 or nq, limit), finite, added to the exact scores; or none
  Mode mode = Mode::automatic;
  int threads = 1;
  double step = 0.0;                    // see scan_pays; 0: M
  const std::int64_t* skip = nullptr;   // for each query a node that its walk treats as missing (-1: none); or none: for calibrations

  std::uint32_t skipped(std::size_t query) const { return skip == nullptr || skip[query] < 0 ? kNone : static_cast<std::uint32_t>(skip[query]); }
};

// Whether a scan of `matches` nodes is no more work than a walk of width `ef` among `size` nodes of which so many may be results: it expands
// about ef * size / matches nodes, each as much work as `step` rows of a scan. The scan, being exact, wins ties.
bool scan_pays(double matches, double size, double ef, double step);

// Where answers go: nq rows of k nodes (-1 in missing places) and scores (NaN there), and how many places of each row are filled.
struct Answer {
  std::int64_t* nodes;
  float* scores;
  std::int64_t* counts;

  void write(const std::vector<Scored>& scored, std::size_t query, std::size_t k) const;
  void write(const std::vector<score::Candidate>& best, std::size_t query, std::size_t k) const;
};

// Which nodes may be results. Every node may be passed through.
struct Keep {
  const std::uint8_t* deleted = nullptr;  // one byte per node, non-zero: not a result; nullptr: none is deleted
  const std::uint8_t* allowed = nullptr;  // one byte per node below the limit, zero: not a result; nullptr: all are allowed
  std::size_t limit = kNone;              // nodes from here on are not results

  bool everything() const { return deleted == nullptr && allowed == nullptr && limit == kNone; }
  bool operator()(std::uint32_t node) const {
    return node < limit && (deleted == nullptr || deleted[node] == 0) && (allowed == nullptr || allowed[node] != 0);
  }
};

// What a search needs to know of the nodes as a whole.
struct Nodes {
  std::size_t size, live;
  const std::uint8_t* deleted;
  std::uint32_t m;
  std::size_t passable = 0;  // nodes that a walk may meet, where these are more than `size`
};

// The queries as rows and kernels need them; for cosine, they are scaled to norm 1 in `unit`. Throws InputError with the query's number.
std::vector<score::Query> plan(const Request& request, const Params& params, std::vector<float>& unit);

// Request and nodes must outlive it. What is the same for all queries is worked out once.
class Choice {
 public:
  Choice(const Request& request, const Nodes& nodes);

  Keep keep(std::size_t query) const;
  // How many nodes may be results.
  std::size_t matches(std::size_t query) const { return shared_ ? matches_ : count(keep(query)); }
  // Whether all of them are looked at instead of walking.
  bool scans(std::size_t matches) const;
  // They themselves; `own` is room for those of a query with a filter of its own.
  const std::vector<std::uint32_t>& list(std::size_t query, std::vector<std::uint32_t>& own) const;
  // The list that every query of the request scans, or null: then each is asked for.
  const std::vector<std::uint32_t>* shared_scan() const { return listed_ ? &list_ : nullptr; }
  const float* bias(std::size_t query) const;

 private:
  std::size_t count(const Keep& keep) const;
  std::vector<std::uint32_t> kept(const Keep& keep) const;

  const Request& request_;
  Nodes nodes_;
  bool shared_;              // one filter, or none, for all queries
  std::size_t matches_ = 0;  // then, how many it lets through ...
  bool listed_ = false;      // ... and whether they stand in list_
  std::vector<std::uint32_t> list_;
};

}  // namespace nf::graph
