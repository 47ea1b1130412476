// Rows as int8 codes for the scan: sixteen rows interleaved, so that one register holds the same dimensions of several rows.
//
// Symmetric codes with one scale a row: x = scale * code + rest, |code| <= 127. A scale has 16 significant bits, so scale * code is a
// float32 without rounding, and a store of int8 rows is these codes alone, with no rest. Beside them stands `error`, not below |rest|, by which
// Cauchy-Schwarz bounds what the codes leave out of an inner product: |q . rest| <= |q| |rest|. For unit rows of 384 dimensions it is about
// 0.007. A block is ceil(dim / 4) times 64 bytes: four dimensions of sixteen rows, which suits AVX2, AVX-512, VNNI and AMX alike.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/aligned.h"
#include "kernels/scan_i8/contract.h"

namespace nf::codec {

constexpr std::size_t kPackRows = kernels::kScanBlockRows;
constexpr std::size_t kPackDims = kernels::kScanGroupDims;

inline std::size_t packed_groups(std::size_t dim) { return (dim + kPackDims - 1) / kPackDims; }
inline std::size_t packed_blocks(std::size_t rows) { return (rows + kPackRows - 1) / kPackRows; }
inline std::size_t packed_bytes(std::size_t rows, std::size_t dim) { return packed_blocks(rows) * packed_groups(dim) * kPackRows * kPackDims; }

// Packed rows of which the first stands at the beginning of a block; null when there are none.
struct PackedView {
  const std::int8_t* codes = nullptr;
  const float* scale = nullptr;
  const float* error = nullptr;
  const float* square = nullptr;  // |x|^2, rounded to nearest

  // From row `first` on, a multiple of kPackRows.
  PackedView from(std::size_t first, std::size_t dim) const {
    return {codes + first * packed_groups(dim) * kPackDims, scale + first, error + first, square + first};
  }
  bool operator==(const PackedView& other) const {
    return codes == other.codes && scale == other.scale && error == other.error && square == other.square;
  }
};

// Room for `rows` packed rows; a place that was never written is a zero row.
class PackedRows {
 public:
  PackedRows() = default;
  PackedRows(std::size_t rows, std::size_t dim);

  // Different places may be written by different threads at the same time. `rest` says whether the row is kept beside its codes (then what
  // they leave out counts as error) or is from now on what they say. Values too large for the scale become the largest code.
  // Returns the squared length of the row that is kept.
  double encode(std::size_t place, const float* row, bool rest);
  void copy(std::size_t place, const PackedView& from, std::size_t index);

  PackedView view() const { return {codes_.data(), scale_.data(), error_.data(), square_.data()}; }

 private:
  std::size_t dim_ = 0;
  AlignedBuffer<std::int8_t> codes_;
  AlignedBuffer<float> scale_, error_, square_;
};

// What the codes of row `index` say: `dim` float32 values.
void unpack_row(const PackedView& rows, std::size_t index, std::size_t dim, float* out);

}  // namespace nf::codec
