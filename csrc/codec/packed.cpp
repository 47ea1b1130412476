#include "codec/packed.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/rounding.h"
#include "codec/quantize.h"

namespace nf::codec {
namespace {

std::size_t offset_of(std::size_t place, std::size_t dim) {
  return place / kPackRows * packed_groups(dim) * kPackRows * kPackDims + place % kPackRows * kPackDims;
}

// Codes of one row, and the squared length of what they leave out.
double quantize_and_measure(const float* row, std::size_t dim, float scale, std::int8_t* codes) {
  quantize(row, dim, scale, codes);
  double rest = 0.0;
  for (std::size_t i = 0; i < dim; ++i) {
    const double gap = static_cast<double>(row[i]) - static_cast<double>(scale) * codes[i];
    rest += gap * gap;
  }
  return rest;
}

}  // namespace

PackedRows::PackedRows(std::size_t rows, std::size_t dim) : dim_(dim), codes_(packed_bytes(rows, dim)) {
  const std::size_t places = packed_blocks(rows) * kPackRows;
  for (AlignedBuffer<float>* each : {&scale_, &error_, &square_}) {
    *each = AlignedBuffer<float>(places);
    each->zero();
  }
  codes_.zero();
}

double PackedRows::encode(std::size_t place, const float* row, bool rest) {
  const float scale = scale_for(peak_of(row, dim_));
  std::vector<std::int8_t> codes(packed_groups(dim_) * kPackDims, 0);
  const double left = quantize_and_measure(row, dim_, scale, codes.data());
  double square = 0.0;
  for (std::size_t i = 0; i < dim_; ++i) {
    const double value = rest ? static_cast<double>(row[i]) : static_cast<double>(scale) * codes[i];
    square += value * value;
  }
  scale_[place] = scale;
  square_[place] = static_cast<float>(square);
  // A float64 sum of dim squares is off by dim * 2^-53 at most; 2^-30 covers 65,536 of them, and the root.
  error_[place] = rest ? std::min(rounded_up(std::sqrt(left) * (1.0 + 0x1p-30)), std::numeric_limits<float>::max()) : 0.0f;
  std::int8_t* const to = codes_.data() + offset_of(place, dim_);
  for (std::size_t g = 0; g < packed_groups(dim_); ++g) std::memcpy(to + g * kPackRows * kPackDims, codes.data() + g * kPackDims, kPackDims);
  return square;
}

void PackedRows::copy(std::size_t place, const PackedView& from, std::size_t index) {
  scale_[place] = from.scale[index];
  error_[place] = from.error[index];
  square_[place] = from.square[index];
  const std::int8_t* const source = from.codes + offset_of(index, dim_);
  std::int8_t* const to = codes_.data() + offset_of(place, dim_);
  for (std::size_t g = 0; g < packed_groups(dim_); ++g) std::memcpy(to + g * kPackRows * kPackDims, source + g * kPackRows * kPackDims, kPackDims);
}

void unpack_row(const PackedView& rows, std::size_t index, std::size_t dim, float* out) {
  const std::int8_t* codes = rows.codes + offset_of(index, dim);
  const float scale = rows.scale[index];
  std::size_t i = 0;
  for (; i + kPackDims <= dim; i += kPackDims, codes += kPackRows * kPackDims) {
    for (std::size_t j = 0; j < kPackDims; ++j) out[i + j] = scale * static_cast<float>(codes[j]);
  }
  for (std::size_t j = 0; i + j < dim; ++j) out[i + j] = scale * static_cast<float>(codes[j]);
}

}  // namespace nf::codec
