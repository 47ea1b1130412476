// The graph of Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using hierarchical navigable small world
// graphs" (2018, arXiv 1603.09320), as plain data: rows, their codes, neighbour lists, levels. One thread at a time changes it (graph/index.h);
// searches read what a snapshot lets them (graph/snapshot.h).
//
// Nodes are numbered in insertion order. A replaced or deleted row stays as a tombstone: searches may pass through it and do not return it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/metric.h"
#include "codec/codes.h"
#include "graph/chunked.h"
#include "graph/snapshot.h"
#include "kernels/dispatch.h"

namespace nf::graph {

struct Params {
  std::uint32_t dim = 0;
  Metric metric = Metric::cosine;
  std::uint32_t m = 16;                 // M: the most neighbours a node has on layers above 0, half as many as on layer 0
  std::uint32_t ef_construction = 200;  // candidates looked at for each of them
  std::uint64_t seed = 0;
  float alpha = 1.0f;  // how many times nearer to a chosen neighbour than to the node a candidate must be to be left out (graph/select.h)

  std::uint32_t m0() const { return 2 * m; }  // the most it keeps on layer 0 (section 4.1: 2 M is a good choice)
};

constexpr std::uint32_t kLargestDim = 1u << 16;
constexpr std::uint32_t kLeastM = 2, kLargestM = 512;
constexpr std::uint32_t kLargestEf = 1u << 20;
constexpr float kLeastAlpha = 1.0f, kLargestAlpha = 4.0f;

// Nodes that 31 bits can name: the lowest bit of a walk's candidates says whether they have been expanded (graph/pool.h).
constexpr std::size_t kMostNodes = (std::size_t{1} << 31) - 1;
// The centre of the codes is the mean of so many rows, the first that come.
constexpr std::size_t kCentreRows = 1024;

struct Graph {
  explicit Graph(const Params& p)
      : params(p), rows(p.dim, 0.0f), codes(codec::coded_bytes(p.dim), 0), links0(p.m0(), kNone), upper(p.m, kNone), centre(p.dim, 0.0f), rest_(p.dim) {}

  std::size_t size() const { return size_; }
  std::size_t live() const { return size_ - deleted.count(); }
  std::size_t slots() const { return slots_; }
  codec::Coder coder() const { return codec::Coder(params.metric, params.dim, centre.data()); }

  Link* links(std::uint32_t node, unsigned layer) { return layer == 0 ? links0[node] : upper[upper_first[node] + layer - 1]; }
  const Link* links(std::uint32_t node, unsigned layer) const { return layer == 0 ? links0[node] : upper[upper_first[node] + layer - 1]; }
  std::uint32_t capacity(unsigned layer) const { return layer == 0 ? params.m0() : params.m; }

  void write_links(std::uint32_t node, unsigned layer, const std::vector<std::uint32_t>& chosen) {
    Link* const list = links(node, layer);
    for (std::uint32_t i = 0; i < capacity(layer); ++i) list[i] = i < chosen.size() ? chosen[i] : kNone;
  }

  // Makes room for nodes of these levels, with empty neighbour lists; rows and codes are for the caller to fill. Strong guarantee.
  void extend(const std::vector<std::uint8_t>& more);
  // Adds nodes with levels by hash, copies their rows and codes them. Strong guarantee.
  void append(const float* values, std::size_t count);
  // Measures and codes the rows from `first` on.
  void encode(std::size_t first);
  // Sets what codes are relative to, the mean of the first rows; codes are then to be made again.
  void set_centre();

  Params params;
  Chunked<float> rows;
  Chunked<std::int8_t> codes;  // what walks and the build compare (codec/codes.h)
  Chunked<Link> links0;        // layer 0; a list ends at kNone or at its capacity
  Chunked<Link> upper;         // layers 1, 2, ... of a node stand one after the other, from upper_first[node]
  Column<std::uint32_t> upper_first;
  Column<std::uint8_t> levels;
  Column<float> norms;  // |row|, rounded up: bounds the rounding error of a float32 score
  std::vector<float> centre;
  Tombstones deleted;
  std::uint32_t entry = kNone;
  std::uint64_t born = 0;  // nodes there ever were, those that consolidate() dropped too: the ordinal of the next one's level

 private:
  std::size_t size_ = 0;
  std::size_t slots_ = 0;  // lists in `upper` that are in use
  std::vector<float> rest_;  // room for encode()
};

// The highest layer of a node: l with probability M^-l (1 - 1/M), which is floor(-ln(u) / ln(M)) of the paper's section 4, from a hash of
// seed and ordinal instead of a random stream, in integers, so that it is the same on every machine and in every order of work.
unsigned level_of(std::uint64_t seed, std::uint64_t ordinal, std::uint32_t m);

// An upper bound of a row's norm in float32; infinity where it does not fit, NaN where a value is NaN.
float norm_above(const float* row, std::size_t dim);

// Distances of float32 rows, smaller is nearer: -q.r or |q - r|^2. Made once per job, on the caller's thread.
class Space {
 public:
  explicit Space(const Params& params)
      : gather_(params.metric == Metric::l2 ? kernels::l2sqr_f32().gather : kernels::dot_f32().gather),
        negate_(params.metric != Metric::l2),
        dim_(params.dim) {}

  // `rows` and `out` have room for n rounded up to a multiple of 4: the kernels take rows by fours, and computing one of them again costs
  // less than the single chain of a row on its own.
  void distances(const float* q, const float** rows, std::size_t n, float* out) const {
    std::size_t padded = n;
    while (n % 4 > 1 && padded % 4 != 0) rows[padded++] = rows[n - 1];
    gather_(q, rows, padded, dim_, out);
    for (std::size_t i = 0; i < n; ++i) {
      const float distance = negate_ ? -out[i] : out[i];
      // Overflow gives infinity or NaN (kernels' contracts). NaN would break every ordering; the largest float keeps them total.
      out[i] = distance < codec::kFar ? distance : codec::kFar;
    }
  }

 private:
  void (*gather_)(const float*, const float* const*, std::size_t, std::size_t, float*);
  bool negate_;
  std::size_t dim_;
};

}  // namespace nf::graph
