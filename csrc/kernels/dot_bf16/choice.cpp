#include "kernels/dot_bf16/choice.h"

#include <cmath>
#include <vector>

#include "base/aligned.h"
#include "base/bf16.h"
#include "kernels/trial.h"

namespace nf::kernels {
namespace {

// A tile of the exact scorer, with as many queries as stay beside it in a second-level cache.
constexpr std::size_t kDim = 384, kRows = 128, kQueries = 48;
// Query and row counts that leave every kernel with a group that is not full.
constexpr std::size_t kCheckedQueries = 37, kCheckedRows = 117;

// Whole numbers from -127 to 127 are bfloat16 numbers, and their sums of products float32 ones: the right result is exact in any order.
class Trial {
 public:
  Trial() : rows_(kRows * kDim), wide_(kRows * kDim), queries_(kQueries * kDim), high_(kQueries * kDim), low_(kQueries * kDim), out_(kQueries * kRows) {
    Sequence draw;
    for (std::size_t i = 0; i < rows_.size(); ++i) rows_[i] = to_bf16(static_cast<float>(draw.next() % 255 - 127));
    for (std::size_t i = 0; i < queries_.size(); ++i) {
      queries_[i] = static_cast<float>(draw.next() % 255 - 127);
      const std::size_t query = i / kDim, d = i % kDim;
      high_[(query / kHalvesQueries * kDim / 2 + d / 2) * 2 * kHalvesQueries + query % kHalvesQueries * 2 + d % 2] = to_bf16(queries_[i]);
    }
    low_.zero();
  }

  bool right(const DotBf16& kernel) {
    kernel.block(high_.data(), low_.data(), kCheckedQueries, rows_.data(), kCheckedRows, kDim, out_.data(), kRows);
    for (std::size_t i = 0; i < kCheckedQueries; ++i) {
      for (std::size_t j = 0; j < kCheckedRows; ++j) {
        float sum = 0.0f;
        for (std::size_t d = 0; d < kDim; ++d) sum += queries_[i * kDim + d] * from_bf16(rows_[j * kDim + d]);
        if (!(out_[i * kRows + j] == sum)) return false;
      }
    }
    return true;
  }

  double seconds(const DotBf16& kernel) {
    return best_seconds([&] { kernel.block(high_.data(), low_.data(), kQueries, rows_.data(), kRows, kDim, out_.data(), kRows); });
  }

  double seconds(const DotF32& kernel) {
    return best_seconds([&] {
      for (std::size_t i = 0; i < rows_.size(); ++i) wide_[i] = from_bf16(rows_[i]);
      kernel.block(queries_.data(), kDim, kQueries, wide_.data(), kDim, kRows, kDim, out_.data(), kRows);
    });
  }

 private:
  AlignedBuffer<std::uint16_t> rows_;
  AlignedBuffer<float> wide_, queries_;
  AlignedBuffer<std::uint16_t> high_, low_;
  std::vector<float> out_;
};

}  // namespace

const DotBf16* faster_dot_bf16(const DotBf16& candidate, const DotF32& dot) {
  Trial trial;
  return trial.right(candidate) && trial.seconds(candidate) < trial.seconds(dot) ? &candidate : nullptr;
}

}  // namespace nf::kernels
