#include "codec/packed.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace nf::codec {
namespace {

constexpr float kCodeMax = 127.0f;
// Rows whose largest value is smaller have no codes (their error is their norm): the reciprocal of the scale must be finite.
constexpr float kSmallest = 0x1p-100f;
// Adding 1.5 * 2^23 to a float32 below 2^22 leaves its nearest integer in the low bits, in baseline vector code.
constexpr float kToInteger = 0x1.8p23f;

float rounded_up(double value) {
  const float rounded = static_cast<float>(value);
  return rounded >= value ? rounded : std::nextafter(rounded, std::numeric_limits<float>::infinity());
}

std::size_t offset_of(std::size_t place, std::size_t dim) {
  return place / kPackRows * packed_groups(dim) * kPackRows * kPackDims + place % kPackRows * kPackDims;
}

// Codes of one row, and the squared length of what they leave out.
double quantize(const float* row, std::size_t dim, float scale, std::int8_t* codes) {
  const float inverse = 1.0f / scale;
  for (std::size_t i = 0; i < dim; ++i) {
    const float shifted = row[i] * inverse + kToInteger;
    std::int32_t bits;
    std::memcpy(&bits, &shifted, sizeof(bits));
    codes[i] = static_cast<std::int8_t>(bits);
  }
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

void PackedRows::encode(std::size_t place, const float* row) {
  float peak = 0.0f;
  double square = 0.0;
  for (std::size_t i = 0; i < dim_; ++i) {
    peak = std::max(peak, std::fabs(row[i]));
    square += static_cast<double>(row[i]) * static_cast<double>(row[i]);
  }
  square_[place] = static_cast<float>(square);
  std::vector<std::int8_t> codes(packed_groups(dim_) * kPackDims, 0);
  double rest = square;
  if (peak >= kSmallest) {
    scale_[place] = peak / kCodeMax;
    rest = quantize(row, dim_, scale_[place], codes.data());
  } else {
    scale_[place] = 0.0f;
  }
  // A float64 sum of dim squares is off by dim * 2^-53 at most; 2^-30 covers 65,536 of them, and the root.
  error_[place] = std::min(rounded_up(std::sqrt(rest) * (1.0 + 0x1p-30)), std::numeric_limits<float>::max());
  std::int8_t* const to = codes_.data() + offset_of(place, dim_);
  for (std::size_t g = 0; g < packed_groups(dim_); ++g) std::memcpy(to + g * kPackRows * kPackDims, codes.data() + g * kPackDims, kPackDims);
}

void PackedRows::copy(std::size_t place, const PackedView& from, std::size_t index) {
  scale_[place] = from.scale[index];
  error_[place] = from.error[index];
  square_[place] = from.square[index];
  const std::int8_t* const source = from.codes + offset_of(index, dim_);
  std::int8_t* const to = codes_.data() + offset_of(place, dim_);
  for (std::size_t g = 0; g < packed_groups(dim_); ++g) std::memcpy(to + g * kPackRows * kPackDims, source + g * kPackRows * kPackDims, kPackDims);
}

}  // namespace nf::codec
