// A frozen graph on disk, in sections of the one container (storage/sections.h), to be used where it is mapped.
//
//   frozen     u32 x 8: layout version, dim, metric, M, ef_construction, nodes, doors, 0 inlined or 1 compact; then u64 seed
//   centre     float32, dim
//   blocks     nodes x the block's size (graph/frozen.h)
//   fine       i8, nodes x dim rounded up to 32: second codes of the rows; empty in a compact graph
//   deleted    u8, nodes: 1 for a tombstone
//   doors      u32, doors: where walks begin
//
// Blocks are not read when the file is opened: a neighbour's number is checked each time it is used, and codes and factors may be any bits, so
// that damage costs results and nothing worse.
#include <cmath>

#include "base/status.h"
#include "graph/frozen.h"

namespace nf::graph {
namespace {

constexpr std::uint32_t kFrozenLayout = 1;

struct Head {
  std::uint32_t version, dim, metric, m, ef_construction, nodes, doors, layout;
  std::uint64_t seed;
};
static_assert(sizeof(Head) == 40, "no padding");

[[noreturn]] void refuse(const storage::MappedFile& file, const std::string& why) {
  throw FormatError(file.path() + ": " + why + ": the file is damaged");
}

FrozenGraph read_head(const storage::MappedFile& file) {
  const Head head = *file.section("frozen").as<Head>(1, "frozen");
  if (head.version != kFrozenLayout) {
    throw FormatError(file.path() + ": layout " + std::to_string(head.version) + " of a frozen graph, this nearfield reads " + std::to_string(kFrozenLayout) +
                      ": freeze the index again");
  }
  if (head.dim < 1 || head.dim > kLargestDim || head.metric > static_cast<std::uint32_t>(Metric::l2) || head.m < kLeastM || head.m > kLargestM ||
      head.ef_construction < 1 || head.ef_construction > kLargestEf || head.layout > static_cast<std::uint32_t>(Layout::compact)) {
    refuse(file, "a parameter of the graph is out of range");
  }
  if (head.nodes > kMostNodes || head.doors > kMostDoors || (head.doors == 0) != (head.nodes == 0)) refuse(file, "the graph's counts are out of range");
  Params params;
  params.dim = head.dim;
  params.metric = static_cast<Metric>(head.metric);
  params.m = head.m;
  params.ef_construction = head.ef_construction;
  params.seed = head.seed;
  FrozenGraph graph(params, static_cast<Layout>(head.layout));
  graph.size = head.nodes;
  graph.doors.resize(head.doors);
  return graph;
}

}  // namespace

void Frozen::save(storage::Writer& writer, const std::string& path) const {
  const Params& p = graph_.params;
  const std::size_t width = codec::code_width(p.dim);
  const Head head{kFrozenLayout,
                  p.dim,
                  static_cast<std::uint32_t>(p.metric),
                  p.m,
                  p.ef_construction,
                  static_cast<std::uint32_t>(graph_.size),
                  static_cast<std::uint32_t>(graph_.doors.size()),
                  static_cast<std::uint32_t>(graph_.layout),
                  p.seed};
  writer.section("frozen", &head, sizeof(head));
  writer.section("centre", graph_.centre.data(), graph_.centre.size() * sizeof(float));
  writer.section("blocks", graph_.blocks, graph_.size * graph_.shape.stride);
  writer.section("fine", graph_.fine, graph_.fine == nullptr ? 0 : graph_.size * width);
  writer.section("deleted", graph_.deleted, graph_.size);
  writer.section("doors", graph_.doors.data(), graph_.doors.size() * sizeof(std::uint32_t));
  writer.commit(path);
}

Frozen::Frozen(std::shared_ptr<storage::MappedFile> file) : graph_(read_head(*file)), file_(std::move(file)) {
  // dim <= 2^16, M <= 2^9 and nodes < 2^31: a block is below 2^25 bytes, all of them below 2^56.
  graph_.blocks = file_->section("blocks").as<unsigned char>(graph_.size * graph_.shape.stride, "blocks");
  const std::size_t fine = graph_.layout == Layout::inlined ? graph_.size * codec::code_width(graph_.params.dim) : 0;
  const std::int8_t* const fine_codes = file_->section("fine").as<std::int8_t>(fine, "fine");
  graph_.fine = graph_.layout == Layout::inlined ? fine_codes : nullptr;
  const float* const centre = file_->section("centre").as<float>(graph_.params.dim, "centre");
  graph_.centre.assign(centre, centre + graph_.params.dim);
  for (const float value : graph_.centre) {
    if (!std::isfinite(value)) refuse(*file_, "the centre is not finite");
  }
  const std::uint32_t* const doors = file_->section("doors").as<std::uint32_t>(graph_.doors.size(), "doors");
  graph_.doors.assign(doors, doors + graph_.doors.size());
  for (const std::uint32_t door : graph_.doors) {
    if (door >= graph_.size) refuse(*file_, "a node where walks begin does not exist");
  }
  const std::uint8_t* const deleted = file_->section("deleted").as<std::uint8_t>(graph_.size, "deleted");
  deleted_.assign(deleted, deleted + graph_.size);  // copied before it is checked: a mapped file can change
  graph_.deleted = deleted_.data();
  for (const std::uint8_t value : deleted_) {
    if (value > 1) refuse(*file_, "a tombstone is neither 0 nor 1");
    graph_.live += value == 0 ? 1 : 0;
  }
  graph_.open_doors();
}

}  // namespace nf::graph
