// A frozen graph as plain data (graph/frozen.h says why it looks so).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/aligned.h"
#include "codec/codes.h"
#include "codec/hadamard.h"
#include "codec/signs.h"
#include "graph/graph.h"

namespace nf::graph {

enum class Layout : std::uint32_t { inlined = 0, compact = 1 };

// Walks begin at the nearest of so many nodes at most: measuring 128 rows that lie together takes about a microsecond.
constexpr std::size_t kMostDoors = 128;

// Where things stand in a block, in bytes.
struct BlockShape {
  static constexpr std::size_t kRows = kernels::kSignBlockRows;
  static constexpr std::size_t kAdd = kRows * sizeof(std::uint32_t);
  static constexpr std::size_t kFactor = kAdd + kRows * sizeof(std::uint16_t);
  static constexpr std::size_t kCodes = kFactor + kRows * sizeof(std::uint16_t);

  BlockShape(const Params& params, Layout layout) {
    row = lines(codec::coded_bytes(params.dim));
    if (layout == Layout::inlined) {
      groups = codec::sign_groups(params.dim);
      slots = (params.m0() + kRows - 1) / kRows * kRows;
      part = kCodes + groups * kernels::kSignGroupBytes;
      stride = row + slots / kRows * part;
    } else {
      slots = params.m0();
      stride = row + lines(slots * sizeof(std::uint32_t));
    }
  }

  std::size_t row = 0;     // of the coded row
  std::size_t slots = 0;   // neighbours
  std::size_t groups = 0;  // of sign codes
  std::size_t part = 0;    // of 32 neighbours
  std::size_t stride = 0;

 private:
  static std::size_t lines(std::size_t bytes) { return (bytes + kCacheLine - 1) / kCacheLine * kCacheLine; }
};

struct FrozenGraph {
  FrozenGraph(const Params& p, Layout l) : params(p), layout(l), shape(p, l), rotation(p.dim, p.seed), centre(p.dim, 0.0f) {}

  const unsigned char* block(std::uint32_t node) const { return blocks + node * shape.stride; }
  const std::int8_t* row(std::uint32_t node) const { return reinterpret_cast<const std::int8_t*>(block(node)); }
  const unsigned char* part(std::uint32_t node, std::size_t index) const { return blocks + node * shape.stride + shape.row + index * shape.part; }
  // A neighbour in either layout; no node where there is none.
  std::uint32_t neighbour(std::uint32_t node, std::size_t i) const {
    if (layout == Layout::compact) return links(node)[i];
    std::uint32_t number;
    std::memcpy(&number, part(node, i / BlockShape::kRows) + i % BlockShape::kRows * sizeof(number), sizeof(number));
    return number;
  }
  // A compact block's neighbours.
  const std::uint32_t* links(std::uint32_t node) const { return reinterpret_cast<const std::uint32_t*>(blocks + node * shape.stride + shape.row); }
  const std::int8_t* fine_row(std::uint32_t node) const { return fine + node * codec::code_width(params.dim); }
  const std::int8_t* fine_row_or_null(std::uint32_t node) const { return fine != nullptr ? fine_row(node) : nullptr; }
  codec::Coder coder() const { return codec::Coder(params.metric, params.dim, centre.data()); }
  // Copies the coded rows of the doors side by side.
  void open_doors();

  Params params;
  Layout layout;
  BlockShape shape;
  codec::FastRotation rotation;
  std::vector<float> centre;
  std::size_t size = 0, live = 0;
  std::vector<std::uint32_t> doors;
  AlignedBuffer<std::int8_t> door_rows;
  // Borrowed.
  const unsigned char* blocks = nullptr;
  const std::int8_t* fine = nullptr;  // second codes of each row (Coder::encode_fine); null in a compact graph
  const std::uint8_t* deleted = nullptr;
};

}  // namespace nf::graph
