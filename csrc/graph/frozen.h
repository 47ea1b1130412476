// A graph that no longer changes, laid out for speed: each node's block holds all that a step of the walk reads.
//
//   block    the node's coded row (codec/codes.h), padded to whole cache lines; then one part for each 32 neighbours:
//   part     u32 x 32 nodes (kNone: no neighbour); bfloat16 x 32 `add`; bfloat16 x 32 `factor`; the neighbours' sign codes
//
// The sign codes are those of RaBitQ (Gao and Long, SIGMOD 2024, arXiv 2405.12497) relative to the node, as in SymphonyQG (Gou et al., SIGMOD
// 2025, arXiv 2411.12229): with v = neighbour - node, R a random rotation and b the signs of R v, a query's w = q - node has
// w . v ~ f (b . R w), f = |v|^2 / |R v|_1. So one step measures the node itself by its codes and estimates all its neighbours without
// touching them: 35 cache lines in a row at 384 dimensions and M = 16, where 32 float32 neighbours are 768 lines in 32 places.
//
// A compact graph has no sign codes, only the neighbours' numbers: it measures neighbours by their coded rows, as the mutable graph does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/aligned.h"
#include "codec/codes.h"
#include "codec/hadamard.h"
#include "graph/graph.h"
#include "graph/request.h"
#include "graph/walker.h"
#include "storage/sections.h"

namespace nf::graph {

// Memory in huge pages.
class HugeBuffer {
 public:
  HugeBuffer() = default;
  explicit HugeBuffer(std::size_t bytes) : data_(static_cast<unsigned char*>(huge_memory(bytes)), &std::free) {}
  unsigned char* data() { return data_.get(); }

 private:
  std::unique_ptr<unsigned char, void (*)(void*)> data_{nullptr, &std::free};
};

class Frozen {
 public:
  // The nodes of a graph, tombstones as passages.
  Frozen(const Graph& graph, Layout layout, int threads);
  // Checks all sizes that the file gives; nodes in neighbour lists are checked when they are used, so that opening reads no block.
  explicit Frozen(std::shared_ptr<storage::MappedFile> file);

  // How fast distances grow with rank, |q - x_r|^2 ~ r^rate, and what counts as near at least, both measured on the graph's own rows
  // (docs/hnsw.md), and, where distances are told by inner products, all rows' |x|^2. With rate > 0 a walk ends by distance. To be set before
  // the first search.
  struct Growth {
    double rate = 0.0, near = 0.0, square = 1.0;
  };
  void set_growth(const Growth& growth) { growth_ = growth; }

  // As Hnsw::search; a scan, too, scores rows as they are kept here. Throws InputError with the query's number.
  void search(const Request& request, const Answer& answer) const;
  // As Hnsw::score, and the very scores that a search reports.
  void score(MatrixView<float> queries, MatrixView<std::int64_t> nodes, int threads, float* out) const;
  // Rows as they are kept. Throws InputError when a node does not exist.
  void get(const std::vector<std::uint64_t>& nodes, float* out) const;
  std::vector<std::uint64_t> live_nodes() const;
  const FrozenGraph& graph() const { return graph_; }
  // See graph::walk_nodes.
  double hop_nodes() const;
  std::size_t bytes_per_row() const;
  // Live nodes with 0, 1, ... neighbours. Reads all blocks; a number that names no node, as in a damaged file, is no neighbour.
  std::vector<std::uint64_t> degrees() const;

  // Writes the container: the sections already in `writer`, then those of the graph.
  void save(storage::Writer& writer, const std::string& path) const;

 private:
  FrozenGraph graph_;
  Growth growth_;
  HugeBuffer blocks_;
  HugeBuffer fine_;
  std::vector<std::uint8_t> deleted_;
  std::shared_ptr<storage::MappedFile> file_;
  mutable Lending<Walkers> walkers_;
};

}  // namespace nf::graph
