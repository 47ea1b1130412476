#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/status.h"
#include "graph/frozen.h"
#include "parallel/pool.h"

namespace nf::graph {
namespace {

std::uint16_t to_bf16(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return static_cast<std::uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

// No neighbour: farther than anything, whatever the query.
constexpr std::uint16_t kFarAdd = 0x7F7Fu;  // the largest finite bfloat16

// Rows less the centre, rotated: once for each, not once for each link to it.
class Rotated {
 public:
  Rotated(const FrozenGraph& frozen, const Graph& graph, int threads) : width_(frozen.rotation.width()), rows_(graph.size() * width_ * sizeof(float)) {
    const kernels::Hadamard& kernel = kernels::hadamard();
    raise_if_bad(parallel::parallel_for(graph.size(), threads, [&](std::size_t begin, std::size_t end, std::size_t) {
      std::vector<float> rest(graph.params.dim);
      for (std::size_t node = begin; node < end; ++node) {
        const float* row = graph.rows[node];
        for (std::size_t i = 0; i < rest.size(); ++i) rest[i] = row[i] - frozen.centre[i];
        frozen.rotation.apply(kernel, rest.data(), at(node));
      }
    }));
  }

  std::size_t width() const { return width_; }
  const float* operator[](std::size_t node) const { return const_cast<Rotated*>(this)->at(node); }

 private:
  float* at(std::size_t node) { return reinterpret_cast<float*>(rows_.data()) + node * width_; }

  std::size_t width_;
  HugeBuffer rows_;
};

// Place i of a part: `to` as a neighbour of `node`.
void write_neighbour(const Graph& graph, const Rotated& rotated, std::uint32_t node, std::uint32_t to, std::size_t i, unsigned char* part) {
  const float *from_row = graph.rows[node], *to_row = graph.rows[to], *from = rotated[node], *neighbour = rotated[to];
  double size = 0.0, square = 0.0, along = 0.0, base = 0.0;  // |R v|_1, |v|^2, b . R (node - centre), node . v
  unsigned char* code = part + BlockShape::kCodes + i % kernels::kSignGroupBytes;
  const unsigned half = i < kernels::kSignGroupBytes ? 0 : 4;
  for (std::size_t j = 0; j < rotated.width(); j += kernels::kSignGroupDims, code += kernels::kSignGroupBytes) {
    unsigned pattern = 0;
    for (std::size_t d = 0; d < kernels::kSignGroupDims; ++d) {
      const double gap = static_cast<double>(neighbour[j + d]) - static_cast<double>(from[j + d]);
      const bool positive = gap >= 0.0;
      pattern |= (positive ? 1u : 0u) << d;
      size += std::fabs(gap);
      along += positive ? static_cast<double>(from[j + d]) : -static_cast<double>(from[j + d]);
    }
    *code = static_cast<unsigned char>(*code | pattern << half);
  }
  for (std::size_t j = 0; j < graph.params.dim; ++j) {
    const double gap = static_cast<double>(to_row[j]) - static_cast<double>(from_row[j]);
    square += gap * gap;
    base += static_cast<double>(from_row[j]) * gap;
  }
  // distance = that of the node + add + factor * (b . R (query - centre)); see codec/codes.h for the two forms of a distance
  const double share = size > 0.0 ? square / size : 0.0;
  const bool l2 = graph.params.metric == Metric::l2;
  const auto add = static_cast<float>(l2 ? square + 2.0 * share * along : share * along - base);
  const auto factor = static_cast<float>(l2 ? -2.0 * share : -share);
  const bool usable = std::fabs(add) < 0x1p126f && std::fabs(factor) < 0x1p126f;
  const std::uint16_t codes[2] = {usable ? to_bf16(add) : kFarAdd, usable ? to_bf16(factor) : std::uint16_t{0}};
  std::memcpy(part + i * sizeof(to), &to, sizeof(to));
  std::memcpy(part + BlockShape::kAdd + i * 2, &codes[0], 2);
  std::memcpy(part + BlockShape::kFactor + i * 2, &codes[1], 2);
}

// A compact block needs no rotated rows.
void write_block(const FrozenGraph& frozen, const Graph& graph, const Rotated* rotated, std::uint32_t node, unsigned char* block) {
  std::memset(block, 0, frozen.shape.stride);
  std::memcpy(block, graph.codes[node], graph.codes.width());
  unsigned char* const behind = block + frozen.shape.row;
  const Link* links = graph.links(node, 0);
  const std::uint32_t capacity = graph.capacity(0);
  if (frozen.layout == Layout::compact) {
    std::memcpy(behind, links, capacity * sizeof(std::uint32_t));
    return;
  }
  for (std::size_t i = 0; i < frozen.shape.slots; ++i) {
    unsigned char* const part = behind + i / BlockShape::kRows * frozen.shape.part;
    const std::size_t at = i % BlockShape::kRows;
    if (i < capacity && links[i] != kNone) {
      write_neighbour(graph, *rotated, node, links[i], at, part);
    } else {
      std::memcpy(part + at * sizeof(kNone), &kNone, sizeof(kNone));
      std::memcpy(part + BlockShape::kAdd + at * 2, &kFarAdd, 2);
    }
  }
}

// The nodes of the lowest layer that has at most kMostDoors, the entry among them.
std::vector<std::uint32_t> doors_of(const Graph& graph) {
  std::vector<std::uint32_t> doors;
  for (unsigned layer = 0; graph.entry != kNone && layer <= graph.levels[graph.entry]; ++layer) {
    doors.clear();
    for (std::uint32_t node = 0; node < graph.size() && doors.size() <= kMostDoors; ++node) {
      if (graph.levels[node] >= layer) doors.push_back(node);
    }
    if (doors.size() <= kMostDoors) return doors;
  }
  if (graph.entry != kNone) doors.assign(1, graph.entry);
  return doors;
}

}  // namespace

void FrozenGraph::open_doors() {
  door_rows = AlignedBuffer<std::int8_t>(doors.size() * shape.row);
  for (std::size_t i = 0; i < doors.size(); ++i) std::memcpy(door_rows.data() + i * shape.row, row(doors[i]), shape.row);
}

Frozen::Frozen(const Graph& graph, Layout layout, int threads) : graph_(graph.params, layout) {
  graph_.centre = graph.centre;
  graph_.size = graph.size();
  graph_.live = graph.live();
  graph_.doors = doors_of(graph);
  deleted_.assign(graph.deleted.data(), graph.deleted.data() + graph.size());
  graph_.deleted = deleted_.data();
  const codec::Coder coder = graph_.coder();
  const std::size_t width = coder.width();
  blocks_ = HugeBuffer(graph_.size * graph_.shape.stride);
  graph_.blocks = blocks_.data();
  std::unique_ptr<const Rotated> rotated;
  if (layout == Layout::inlined) {
    rotated = std::make_unique<const Rotated>(graph_, graph, threads);
    fine_ = HugeBuffer(graph_.size * width);
    graph_.fine = reinterpret_cast<const std::int8_t*>(fine_.data());
  }
  raise_if_bad(parallel::parallel_for(graph_.size, threads, [&](std::size_t begin, std::size_t end, std::size_t) {
    std::vector<float> rest(graph_.params.dim);
    std::vector<std::int8_t> codes(codec::coded_bytes(graph_.params.dim));
    for (std::size_t i = begin; i < end; ++i) {
      const auto node = static_cast<std::uint32_t>(i);
      write_block(graph_, graph, rotated.get(), node, blocks_.data() + i * graph_.shape.stride);
      if (layout == Layout::compact) continue;
      coder.encode_row(graph.rows[node], rest.data(), codes.data());
      coder.encode_fine(rest.data(), codec::terms_of(codes.data(), width).scale, codes.data(), reinterpret_cast<std::int8_t*>(fine_.data()) + i * width);
    }
  }));
  graph_.open_doors();
}

}  // namespace nf::graph
