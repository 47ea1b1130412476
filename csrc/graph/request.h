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
  walk,       // the walk over all nodes only: for tests and measurements of it
  hop,        // the walk over kept nodes only, the same
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

// How many nodes a walk of width `ef` among `size` nodes, of which `matches` may be results, is as much work as. One over all nodes expands
// size / matches for each of its candidates; one over the kept nodes alone, two links at a time, is as much work as `hop` of them whatever the share.
double walk_nodes(double matches, double size, double ef, double hop);
// Whether it goes over the kept nodes alone.
inline bool hops_pay(double matches, double size, double hop) { return matches > 0.0 && size > hop * matches; }
// Whether a scan of them is no more work than the walk, each node of it being as much work as `step` rows of a scan. The scan, being exact, wins ties.
bool scan_pays(double matches, double size, double ef, double step, double hop);

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
  const std::uint64_t* bits = nullptr;    // of a filter, tombstones left out: one bit per node below the limit; nullptr: no filter
  std::size_t limit = kNone;              // nodes from here on are not results

  bool everything() const { return deleted == nullptr && bits == nullptr && limit == kNone; }
  bool operator()(std::uint32_t node) const {
    return node < limit && (deleted == nullptr || deleted[node] == 0) && (bits == nullptr || (bits[node / 64] >> node % 64 & 1) != 0);
  }
};

// A filter as bits, and how many nodes it lets through: of a million rows they stay in the second-level cache, while a walk asks at random.
struct Bits {
  std::vector<std::uint64_t> words;
  std::size_t count = 0;
};

// What one query may find; `keep` may point into the request, the nodes or the Bits it was made with.
struct Allowed {
  Keep keep;
  std::size_t matches = 0;
};

// A walk over kept nodes needs so many times the candidates of one over all for the same recall (docs/log.md).
constexpr double kHopWidth = 2.0;

// What a search needs to know of the nodes as a whole.
struct Nodes {
  std::size_t size, live;
  const std::uint8_t* deleted;
  std::uint32_t m;
  double hop;                // see walk_nodes
  std::size_t passable = 0;  // nodes that a walk may meet, where these are more than `size`
};

// The queries as rows and kernels need them; for cosine, they are scaled to norm 1 in `unit`. Throws InputError with the query's number.
std::vector<score::Query> plan(const Request& request, const Params& params, std::vector<float>& unit);

// Request and nodes must outlive it. What is the same for all queries is worked out once.
class Choice {
 public:
  Choice(const Request& request, const Nodes& nodes);

  // One filter, or none, for all queries.
  bool shared() const { return shared_; }
  // Which nodes may be results, and how many; `own` is room for a filter that this query alone has.
  Allowed allowed(std::size_t query, Bits& own) const { return shared_ ? all_ : make_allowed(query, own); }
  // Whether all of them are looked at instead of walking.
  bool scans(std::size_t matches) const;
  // Whether a walk goes over the kept nodes alone.
  bool hops(std::size_t matches) const;
  // They themselves; `own` is room for those that are listed for this query alone.
  const std::vector<std::uint32_t>& list(const Allowed& allowed, std::vector<std::uint32_t>& own) const;
  // The list that every query of the request scans, or null: then each is asked for.
  const std::vector<std::uint32_t>* shared_scan() const { return listed_ ? &list_ : nullptr; }
  const float* bias(std::size_t query) const;

 private:
  Allowed make_allowed(std::size_t query, Bits& own) const;
  std::vector<std::uint32_t> listed(const Keep& keep) const;

  const Request& request_;
  Nodes nodes_;
  bool shared_;          // one filter, or none, for all queries:
  Bits bits_;
  Allowed all_;
  bool listed_ = false;  // and whether what it lets through stands in list_
  std::vector<std::uint32_t> list_;
};

}  // namespace nf::graph
