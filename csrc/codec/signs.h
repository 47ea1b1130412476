// Rows as one bit for each dimension: the signs of the rotated row, after RaBitQ (Gao and Long, "RaBitQ: Quantizing high-dimensional vectors
// with a theoretical error bound for approximate nearest neighbor search", SIGMOD 2024, arXiv 2405.12497, section 3).
//
// For a row v, R v its rotation and b its signs (+1 or -1), b / sqrt(D) is the unit vector that stands for it, and a = |R v|_1 / (sqrt(D) |v|)
// the cosine between the two. For any query p the estimate of p . v is  factor * (b . R p)  with factor = |v|^2 / |R v|_1.
// It is off by  error * (u . p), u a direction at a right angle to v that is uniformly random over the rotation, and
// error = |v| sqrt(1 / a^2 - 1), about 0.76 |v|.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/aligned.h"
#include "kernels/scan_1bit/contract.h"

namespace nf::codec {

inline std::size_t sign_groups(std::size_t dim) {
  const std::size_t unit = kernels::kSignGroupDims * kernels::kSignGroupUnit;
  return (dim + unit - 1) / unit * kernels::kSignGroupUnit;
}

// Beyond this the row is let through whatever is asked: its signs say next to nothing of it (a below 1/2; the mean is 0.8).
constexpr float kUnsure = 0x1p60f;

// Rows in blocks of 32 (layout: kernels/scan_1bit/contract.h); null when there are none. A row takes dim / 8 bytes and these two factors.
struct SignView {
  const std::uint8_t* codes = nullptr;
  const float* factor = nullptr;
  const float* error = nullptr;

  // From row `first` on, a multiple of 32.
  SignView from(std::size_t first, std::size_t dim) const {
    return {codes + first / kernels::kSignBlockRows * sign_groups(dim) * kernels::kSignGroupBytes, factor + first, error + first};
  }
};

class SignRows {
 public:
  // `rows` is a multiple of 32.
  SignRows(std::size_t rows, std::size_t dim);

  // The row whose rotation and squared length are given. Rows of different blocks may be written by different threads at the same time.
  void encode(std::size_t place, const float* rotated, double square);

  SignView view() const { return {codes_.data(), factor_.data(), error_.data()}; }

 private:
  std::size_t dim_;
  AlignedBuffer<std::uint8_t> codes_;
  AlignedBuffer<float> factor_, error_;
};

}  // namespace nf::codec
