#include "graph/frozen.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/prefetch.h"
#include "base/status.h"
#include "parallel/pool.h"

namespace nf::graph {
namespace {

// What the first codes leave out may change places among the nearest: so many more than k are looked at again.
std::size_t to_score(std::size_t k) { return k + k / 4 + 4; }

// Of so many nodes expanded, the fewest that a filter with this share of all would let through, were its rows spread evenly: three quarters of
// the mean, less another one and a half deviations.
std::size_t least_by_chance(std::size_t expanded, std::size_t matches, std::size_t size) {
  const double mean = static_cast<double>(expanded) * static_cast<double>(matches) / static_cast<double>(size);
  return static_cast<std::size_t>(std::max(0.0, 0.75 * mean - 1.5 * std::sqrt(mean)));
}

// With a filter that lets `matches` nodes through, so many more candidates that about ef of them are kept.
std::size_t widened(std::size_t ef, std::size_t matches, std::size_t size) {
  if (matches == 0 || matches >= size) return ef;
  const double wide = static_cast<double>(ef) * static_cast<double>(size) / static_cast<double>(matches);
  return static_cast<std::size_t>(std::min(wide + 1.0, static_cast<double>(size)));
}

// A walk that ends by distance has room for so many times ef candidates: an easy query needs fewer than ef, a hard one more.
constexpr double kRoom = 1.5;
// How far, by ranks, from the k-th distance to that of rank ef: there the recall is that of a walk with room for ef (docs/log.md). Estimates of far
// rows as near ones take a walk farther than distances do.
constexpr double kWayByEstimates = 0.5, kWayByDistances = 0.65;

// Every allowed row is looked at instead, for `count` queries, at most Skim::kQueries, with the same list of them.
void scan_all(const FrozenTools& tools, const Request& request, const Choice& choice, const std::vector<score::Query>& queries, const std::size_t* at,
              std::size_t count, const std::vector<std::uint32_t>& nodes, Skim& skim, const Answer& answer) {
  const FrozenGraph& graph = tools.graph;
  skim.begin(tools.coder, graph.params.metric, std::min(request.k, std::max<std::size_t>(1, nodes.size())));
  for (std::size_t i = 0; i < count; ++i) skim.add(queries[at[i]], choice.bias(at[i]));
  const auto score = [&](std::size_t query, std::uint32_t node) {
    return skim.coded(query).score(tools.coder, graph.params.metric, graph.row(node), graph.fine_row_or_null(node));
  };
  skim.over(nodes, [&](std::uint32_t node) { return graph.row(node); }, score);
  const auto ask_for = [&](std::uint32_t node) {
    if (graph.fine != nullptr) prefetch(graph.fine_row(node), tools.coder.width());
  };
  for (std::size_t i = 0; i < count; ++i) {
    answer.write(skim.best(i, [&](std::uint32_t node) { return score(i, node); }, ask_for), at[i], request.k);
  }
}

// What a walk over kept nodes is as much work as, for each candidate of one over all (graph/request.h; measured at shares of 0.05 and 0.02, docs/log.md).
constexpr double kHopInlined = 20.0, kHopCompact = 10.0;

// One part of a batch: walks take turns, each a step, until all of its queries are answered.
class Turns {
 public:
  Turns(const FrozenTools& tools, const Request& request, const Choice& choice, const std::vector<score::Query>& queries, const Answer& answer,
        const Frozen::Growth& growth)
      : tools_(tools), request_(request), choice_(choice), queries_(queries), answer_(answer), growth_(growth) {}

  void run(std::size_t begin, std::size_t end, Walkers& walkers) {
    next_ = begin;
    end_ = end;
    skim_ = &walkers.skim;
    std::size_t running = 0;  // the first ones are under way
    Walkers::Lane* lanes[Walkers::kTurns];
    for (Walkers::Lane& each : walkers.lanes) {
      if (!begin_next(each)) break;
      lanes[running++] = &each;
    }
    while (running > 0) {
      for (std::size_t i = 0; i < running;) {
        if (lanes[i]->walker.step(tools_, running > 1 ? &ahead_ : nullptr)) {
          ++i;
          continue;
        }
        end_walk(*lanes[i]);
        if (begin_next(*lanes[i])) continue;
        --running;
        std::swap(lanes[i], lanes[running]);
      }
    }
    // With one filter for all, those that found too little read each row once for sixteen of them.
    if (!late_.empty()) scan_in_groups(late_, choice_.list(choice_.allowed(late_.front(), unused_), own_));
  }

 private:
  using Lane = Walkers::Lane;

  // Where a node may be a candidate by several estimates, k candidates are fewer than k nodes: with k = ef = 100 most walks met fewer.
  std::size_t ef() const { return std::max(request_.ef, tools_.graph.layout == Layout::inlined ? request_.k + request_.k / 2 : request_.k); }

  // Starts the next query that needs a walk, and answers those before it that do not; false when none is left.
  bool begin_next(Lane& lane) {
    while (next_ < end_) {
      lane.at = next_++;
      lane.allowed = choice_.allowed(lane.at, lane.own);
      if (!choice_.scans(lane.allowed.matches)) {
        lane.walker.prepare(tools_, queries_[lane.at]);
        begin_filtered(lane);
        return true;
      }
      scan(lane);
    }
    return false;
  }

  void begin_filtered(Lane& lane) {
    const std::size_t matches = lane.allowed.matches, size = tools_.graph.size;
    if (choice_.hops(matches)) {
      begin_walk(lane, static_cast<std::size_t>(kHopWidth * static_cast<double>(ef())), Walker::Over::kept);
    } else {
      begin_walk(lane, widened(ef(), matches, size), Walker::Over::all);
    }
  }

  void begin_walk(Lane& lane, std::size_t ef, Walker::Over over) {
    const double way = tools_.graph.layout == Layout::inlined ? kWayByEstimates : kWayByDistances;
    const double wider = static_cast<double>(this->ef()) / static_cast<double>(request_.k);
    const double gain = growth_.rate > 0.0 && over == Walker::Over::all ? std::pow(wider, way * growth_.rate) - 1.0 : 0.0;
    const std::size_t room = gain > 0.0 ? static_cast<std::size_t>(kRoom * static_cast<double>(ef)) : ef;
    lane.walker.start(tools_, room, to_score(request_.k), lane.allowed.keep, request_.skipped(lane.at), {request_.k, gain, growth_.near, growth_.square}, over);
  }

  // Where all rows may be results, a walk that met fewer than k of them was too narrow: estimates of the same nodes filled its places.
  // A wider one costs microseconds, a scan milliseconds.
  void widen(Lane& lane) {
    const std::size_t wanted = std::min(request_.k, lane.allowed.matches);
    for (std::size_t ef = 2 * this->ef(); lane.walker.scored().size() < wanted && ef < tools_.graph.size / 4; ef *= 2) {
      begin_walk(lane, ef, Walker::Over::all);
      while (lane.walker.step(tools_, nullptr)) {
      }
      lane.walker.finish(tools_, request_.k);
    }
  }

  void end_walk(Lane& lane) {
    Walker& walker = lane.walker;
    walker.finish(tools_, request_.k);
    const std::size_t matches = lane.allowed.matches, size = tools_.graph.size;
    if (request_.mode == Mode::automatic && matches == size) widen(lane);
    // Clearly fewer than the filter would let through by chance: its rows lie elsewhere, and the nearest may not be among those found.
    const std::size_t chance = least_by_chance(walker.expanded(), matches, size);
    const bool elsewhere = matches < size && walker.kept() < (choice_.hops(matches) ? chance : std::min(matches, chance));
    if (request_.mode == Mode::automatic && (elsewhere || walker.scored().size() < std::min(request_.k, matches))) {
      scan(lane);
    } else {
      answer_.write(walker.scored(), lane.at, request_.k);
    }
  }

  void scan(const Lane& lane) {
    if (choice_.shared()) {
      late_.push_back(lane.at);
    } else {
      scan_all(tools_, request_, choice_, queries_, &lane.at, 1, choice_.list(lane.allowed, own_), *skim_, answer_);
    }
  }

  void scan_in_groups(const std::vector<std::size_t>& at, const std::vector<std::uint32_t>& nodes) {
    for (std::size_t i = 0; i < at.size(); i += Skim::kQueries) {
      scan_all(tools_, request_, choice_, queries_, at.data() + i, std::min(Skim::kQueries, at.size() - i), nodes, *skim_, answer_);
    }
  }

  const FrozenTools& tools_;
  const Request& request_;
  const Choice& choice_;
  const std::vector<score::Query>& queries_;
  const Answer& answer_;
  const Frozen::Growth growth_;
  std::size_t next_ = 0, end_ = 0;
  Ahead ahead_;
  Skim* skim_ = nullptr;
  std::vector<std::uint32_t> own_;
  std::vector<std::size_t> late_;  // queries to scan for at the end
  Bits unused_;                    // one filter for all has its own
};

}  // namespace

double Frozen::hop_nodes() const { return graph_.layout == Layout::inlined ? kHopInlined : kHopCompact; }

void Frozen::search(const Request& request, const Answer& answer) const {
  if (request.nq == 0) return;
  std::vector<float> unit;
  const std::vector<score::Query> queries = plan(request, graph_.params, unit);
  const FrozenTools tools(graph_);
  const Choice choice(request, Nodes{graph_.size, graph_.live, graph_.deleted, graph_.params.m, hop_nodes()});
  raise_if_bad(parallel::parallel_for(request.nq, request.threads, [&](std::size_t begin, std::size_t end, std::size_t) {
    auto walkers = walkers_.borrow();
    Turns(tools, request, choice, queries, answer, growth_).run(begin, end, *walkers);
  }));
}

void Frozen::score(MatrixView<float> queries, MatrixView<std::int64_t> nodes, int threads, float* out) const {
  Request request;
  request.queries = queries.data;
  request.nq = queries.rows;
  std::vector<float> unit;
  const std::vector<score::Query> planned = plan(request, graph_.params, unit);
  for (std::size_t i = 0; i < nodes.rows; ++i) {
    for (std::size_t j = 0; j < nodes.cols; ++j) {
      const std::int64_t node = nodes.row(i)[j];
      if (node >= -1 && node < static_cast<std::int64_t>(graph_.size)) continue;
      throw InputError("candidates: row " + std::to_string(i) + ", place " + std::to_string(j) + ": slot " + std::to_string(node) +
                       " given, the index has " + std::to_string(graph_.size));
    }
  }
  const FrozenTools tools(graph_);
  raise_if_bad(parallel::parallel_for(queries.rows, threads, [&](std::size_t begin, std::size_t end, std::size_t) {
    auto walkers = walkers_.borrow();
    Walker& walker = walkers->lanes[0].walker;
    for (std::size_t i = begin; i < end; ++i) {
      walker.prepare(tools, planned[i]);
      for (std::size_t j = 0; j < nodes.cols; ++j) {
        const std::int64_t node = nodes.row(i)[j];
        out[i * nodes.cols + j] = node < 0 ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(walker.score_of(tools, static_cast<std::uint32_t>(node)));
      }
    }
  }));
}

void Frozen::get(const std::vector<std::uint64_t>& nodes, float* out) const {
  const codec::Coder coder = graph_.coder();
  for (const std::uint64_t node : nodes) {
    if (node >= graph_.size) throw InputError("slot " + std::to_string(node) + " given, the index has " + std::to_string(graph_.size));
    const auto at = static_cast<std::uint32_t>(node);
    const std::int8_t* row = graph_.row(at);
    coder.decode({row, graph_.fine != nullptr ? graph_.fine_row(at) : nullptr, codec::terms_of(row, coder.width()).scale}, out);
    out += graph_.params.dim;
  }
}

std::size_t Frozen::bytes_per_row() const {
  return graph_.shape.stride + (graph_.fine != nullptr ? codec::code_width(graph_.params.dim) : 0) + sizeof(*graph_.deleted);
}

std::vector<std::uint64_t> Frozen::degrees() const {
  const BlockShape& shape = graph_.shape;
  std::vector<std::uint64_t> counts(shape.slots + 1);
  for (std::uint32_t node = 0; node < graph_.size; ++node) {
    if (graph_.deleted[node] != 0) continue;
    std::size_t degree = 0;
    for (std::size_t i = 0; i < shape.slots; ++i) {
      const unsigned char* const place = graph_.layout == Layout::inlined
                                             ? graph_.part(node, i / BlockShape::kRows) + i % BlockShape::kRows * sizeof(std::uint32_t)
                                             : reinterpret_cast<const unsigned char*>(graph_.links(node) + i);
      std::uint32_t neighbour;
      std::memcpy(&neighbour, place, sizeof(neighbour));
      degree += neighbour < graph_.size ? 1 : 0;
    }
    ++counts[degree];
  }
  return counts;
}

std::vector<std::uint64_t> Frozen::live_nodes() const {
  std::vector<std::uint64_t> nodes;
  nodes.reserve(graph_.live);
  for (std::size_t node = 0; node < graph_.size; ++node) {
    if (graph_.deleted[node] == 0) nodes.push_back(node);
  }
  return nodes;
}

}  // namespace nf::graph
