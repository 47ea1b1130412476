// One-bit codes of a store's rows, made when the first search with a guarantee asks for them and extended when rows have come since.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/metric.h"
#include "codec/rotation.h"
#include "codec/signs.h"
#include "score/scan.h"

namespace nf::score {

// The one-bit codes of a tile's rows less the centre, v = x - c; the largest of each kind bounds float32's rounding.
struct SignTile {
  codec::SignView codes;
  const float* base;  // c . v for cosine and ip, -|v|^2 for l2, rounded up
  float max_factor = 0.0f, max_error = 0.0f, max_base = 0.0f;
};

class FirstPass {
 public:
  // The rotation takes dim^2 values and dim^3 steps: 16 MiB and some seconds at the upper end. Below the lower end bounds say nothing.
  static bool fits(std::size_t dim) { return dim >= 8 && dim <= 2048; }

  FirstPass(std::size_t dim, Metric metric, Storage storage, std::uint64_t seed, int threads);

  // Codes the rows of `tiles` that are new since the last call. The centre is the mean of the rows there at the first; when four times as
  // many have come, everything is coded again around a new one.
  void extend(const std::vector<Tile>& tiles, int threads);

  const SignTile& tile(std::size_t t) const { return tiles_[t]; }
  const codec::Rotation& rotation() const { return rotation_; }
  const float* centre() const { return centre_.data(); }

 private:
  struct Chunk {
    codec::SignRows rows;
    AlignedBuffer<float> base;
  };
  void choose_centre(const std::vector<Tile>& tiles, std::size_t rows);
  void code(const Tile& tile, std::size_t t);

  const std::size_t dim_;
  const Metric metric_;
  const Storage storage_;
  const codec::Rotation rotation_;
  std::vector<float> centre_;
  std::size_t centred_rows_ = 0, coded_rows_ = 0;
  std::vector<Chunk> chunks_;
  std::vector<SignTile> tiles_;
};

}  // namespace nf::score
