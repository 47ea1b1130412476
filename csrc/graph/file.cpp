// The graph on disk, in sections of the one container (storage/sections.h), and every check that lets a file's numbers become indices.
//
//   graph      u32 x 8: layout version, dim, metric, M, ef_construction, nodes, slots of upper lists, entry; then u64 x 2: seed, nodes there ever were
//   alpha      float32, one; in layout 4 alone, which is 3 where alpha is 1
//   rows       float32, nodes x dim, without padding
//   centre     float32, dim: what the codes are relative to; the codes themselves are made again from rows and centre
//   links0     u32, nodes x 2 M; a list ends at 0xFFFFFFFF or at its capacity
//   upper      u32, slots x M: the lists of layers 1, 2, ... of node 0, then of node 1, ...
//   levels     u8, nodes
//   deleted    u8, nodes: 1 for a tombstone
#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>

#include "base/status.h"
#include "graph/index.h"

namespace nf::graph {
namespace {

constexpr std::uint32_t kLayout = 4, kWithoutAlpha = 3;

struct Head {
  std::uint32_t layout;
  std::uint32_t dim;
  std::uint32_t metric;
  std::uint32_t m;
  std::uint32_t ef_construction;
  std::uint32_t nodes;
  std::uint32_t slots;
  std::uint32_t entry;
  std::uint64_t seed;
  std::uint64_t born;
};
static_assert(sizeof(Head) == 48, "no padding");

[[noreturn]] void refuse(const storage::MappedFile& file, const std::string& why) {
  throw FormatError(file.path() + ": " + why + ": the file is damaged");
}

Head read_head(const storage::MappedFile& file) {
  const Head head = *file.section("graph").as<Head>(1, "graph");
  if (head.layout != kLayout && head.layout != kWithoutAlpha) {
    const char* const who = head.layout > kLayout ? "a newer nearfield wrote it" : "an older nearfield wrote it, build the index again from its rows";
    throw FormatError(file.path() + ": graph layout " + std::to_string(head.layout) + ", this nearfield reads " + std::to_string(kLayout) + ": " + who);
  }
  if (head.dim < 1 || head.dim > kLargestDim || head.metric > static_cast<std::uint32_t>(Metric::l2) || head.m < kLeastM || head.m > kLargestM ||
      head.ef_construction < 1 || head.ef_construction > kLargestEf) {
    refuse(file, "a parameter of the graph is out of range");
  }
  const bool empty = head.nodes == 0;
  if (head.nodes > kMostNodes || head.born < head.nodes || head.slots == kNone || (empty ? head.entry != kNone || head.slots != 0 : head.entry != kNone && head.entry >= head.nodes)) {
    refuse(file, "the graph's counts or its entry are out of range");
  }
  return head;
}

template <typename T>
void write_rows(storage::Writer& writer, const char* name, const Chunked<T>& rows, std::size_t count) {
  writer.section(name);
  for (std::size_t i = 0; i < count; ++i) writer.piece(rows[i], rows.width() * sizeof(T));
}

// `T` as it lies in the file.
template <typename T, typename Row>
void read_rows(const storage::MappedFile& file, const char* name, std::size_t count, Chunked<Row>& rows) {
  // dim <= 2^16, M <= 2^9 and count < 2^32: the product stays below 2^49.
  const T* values = file.section(name).as<T>(count * rows.width(), name);
  for (std::size_t i = 0; i < count; ++i) std::copy(values + i * rows.width(), values + (i + 1) * rows.width(), rows[i]);
}

// A row may hold any bits: what append() would have refused is refused here.
void check_rows(const storage::MappedFile& file, const Graph& graph) {
  for (std::size_t i = 0; i < graph.size(); ++i) {
    const float norm = norm_above(graph.rows[i], graph.params.dim);
    const bool unit = norm == 0.0f || std::fabs(norm - 1.0f) < 0x1p-16f;
    if (!std::isfinite(norm) || (graph.params.metric == Metric::cosine && !unit)) refuse(file, "row " + std::to_string(i) + " has an impossible norm");
  }
}

// The centre may be anything that is finite, and then costs recall at most.
void read_centre(const storage::MappedFile& file, Graph& graph) {
  const float* stored = file.section("centre").as<float>(graph.params.dim, "centre");
  graph.centre.assign(stored, stored + graph.params.dim);
  for (const float value : graph.centre) {
    if (!std::isfinite(value)) refuse(file, "the centre is not finite");
  }
}

// Levels give each node's slots; a node's lists name existing nodes, other than itself, that live on the same layer.
void check_lists(const storage::MappedFile& file, const Graph& graph) {
  for (std::uint32_t node = 0; node < graph.size(); ++node) {
    for (unsigned layer = 0; layer <= graph.levels[node]; ++layer) {
      const Link* links = graph.links(node, layer);
      bool ended = false;
      for (std::uint32_t i = 0; i < graph.capacity(layer); ++i) {
        if (links[i] == kNone) {
          ended = true;
        } else if (ended || links[i] >= graph.size() || links[i] == node || graph.levels[links[i]] < layer) {
          refuse(file, "the links of node " + std::to_string(node) + " are impossible");
        }
      }
    }
  }
}

// Makes room for as many nodes and lists as the file says, and has sections for.
void read_levels(const storage::MappedFile& file, const Head& head, Graph& graph) {
  const std::uint8_t* stored = file.section("levels").as<std::uint8_t>(head.nodes, "levels");
  const std::vector<std::uint8_t> levels(stored, stored + head.nodes);  // copied before it is checked: a mapped file can change
  std::size_t slots = 0;
  for (const std::uint8_t level : levels) slots += level;
  if (slots != head.slots) refuse(file, "the nodes' levels do not add up");
  file.section("rows").as<float>(std::size_t{head.nodes} * head.dim, "rows");
  file.section("links0").as<std::uint32_t>(std::size_t{head.nodes} * graph.links0.width(), "links0");
  file.section("upper").as<std::uint32_t>(std::size_t{head.slots} * graph.upper.width(), "upper");
  graph.extend(levels);
}

void read_tombstones(const storage::MappedFile& file, const Head& head, Graph& graph) {
  const std::uint8_t* stored = file.section("deleted").as<std::uint8_t>(head.nodes, "deleted");
  std::vector<std::uint32_t> dead;
  for (std::uint32_t node = 0; node < head.nodes; ++node) {
    const std::uint8_t mark = stored[node];
    if (mark > 1) refuse(file, "a tombstone is neither 0 nor 1");
    if (mark == 1) dead.push_back(node);
  }
  graph.deleted.mark(dead);
}

// The entry is a live node of the highest layer on which one lives; there is none when all are deleted.
void check_entry(const storage::MappedFile& file, const Head& head, Graph& graph) {
  unsigned top = 0;
  for (std::size_t node = 0; node < graph.size(); ++node) top = graph.deleted[node] ? top : std::max<unsigned>(top, graph.levels[node]);
  const bool right = graph.live() == 0 ? head.entry == kNone : head.entry != kNone && !graph.deleted[head.entry] && graph.levels[head.entry] == top;
  if (!right) refuse(file, "the entry is not on the top layer");
  graph.entry = head.entry;
}

}  // namespace

void Hnsw::save(storage::Writer& writer, const std::string& path) const {
  const std::lock_guard lock(writing_);
  const Graph& graph = *graph_;
  const Params& p = graph.params;
  const Head head{p.alpha == 1.0f ? kWithoutAlpha : kLayout,
                  p.dim,
                  static_cast<std::uint32_t>(p.metric),
                  p.m,
                  p.ef_construction,
                  static_cast<std::uint32_t>(graph.size()),
                  static_cast<std::uint32_t>(graph.slots()),
                  graph.entry,
                  p.seed,
                  graph.born};
  writer.section("graph", &head, sizeof(head));
  if (head.layout == kLayout) writer.section("alpha", &p.alpha, sizeof(p.alpha));
  write_rows(writer, "rows", graph.rows, graph.size());
  writer.section("centre", graph.centre.data(), graph.centre.size() * sizeof(float));
  write_rows(writer, "links0", graph.links0, graph.size());
  write_rows(writer, "upper", graph.upper, graph.slots());
  std::vector<std::uint8_t> levels(graph.size());
  for (std::size_t node = 0; node < graph.size(); ++node) levels[node] = graph.levels[node];
  writer.section("levels", levels.data(), levels.size());
  writer.section("deleted", graph.deleted.data(), graph.size());
  writer.commit(path);
}

std::unique_ptr<Hnsw> Hnsw::load(const storage::MappedFile& file) {
  const Head head = read_head(file);
  Params params;
  params.dim = head.dim;
  params.metric = static_cast<Metric>(head.metric);
  params.m = head.m;
  params.ef_construction = head.ef_construction;
  params.seed = head.seed;
  if (head.layout == kLayout) params.alpha = *file.section("alpha").as<float>(1, "alpha");
  if (!(params.alpha >= kLeastAlpha && params.alpha <= kLargestAlpha)) refuse(file, "alpha is out of range");
  auto graph = std::make_unique<Graph>(params);
  read_levels(file, head, *graph);
  read_tombstones(file, head, *graph);
  check_entry(file, head, *graph);
  read_rows<float>(file, "rows", head.nodes, graph->rows);
  read_rows<std::uint32_t>(file, "links0", head.nodes, graph->links0);
  read_rows<std::uint32_t>(file, "upper", head.slots, graph->upper);
  graph->born = head.born;
  check_rows(file, *graph);
  read_centre(file, *graph);
  check_lists(file, *graph);
  graph->encode(0);
  std::unique_ptr<Hnsw> index(new Hnsw(std::move(graph)));
  index->connected_ = head.nodes;  // as it was when it was saved, so that what is added next makes the same graph
  return index;
}

}  // namespace nf::graph
