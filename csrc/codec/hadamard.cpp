#include "codec/hadamard.h"

#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "codec/signs.h"

namespace nf::codec {
namespace {

constexpr std::size_t kRounds = 4;

}  // namespace

FastRotation::FastRotation(std::size_t dim, std::uint64_t seed) : dim_(dim), width_(sign_groups(dim) * kernels::kSignGroupDims), window_(16) {
  while (2 * window_ <= width_) window_ *= 2;
  const float scale = 1.0f / std::sqrt(static_cast<float>(window_));
  signs_.resize(kRounds * width_);
  for (std::size_t round = 0; round < kRounds; ++round) {
    const std::size_t begin = round % 2 == 0 ? 0 : width_ - window_;
    for (std::size_t i = 0; i < width_; ++i) {
      const bool inside = i >= begin && i < begin + window_;
      const bool negative = (mix64(seed + (round * width_ + i + 1) * kGolden64) >> 63) != 0;
      signs_[round * width_ + i] = (negative ? -1.0f : 1.0f) * (inside ? scale : 1.0f);
    }
  }
}

void FastRotation::apply(const kernels::Hadamard& kernel, const float* row, float* out) const {
  std::copy(row, row + dim_, out);
  std::fill(out + dim_, out + width_, 0.0f);
  for (std::size_t round = 0; round < kRounds; ++round) {
    kernel.round(out, signs_.data() + round * width_, width_, round % 2 == 0 ? 0 : width_ - window_, window_);
  }
}

}  // namespace nf::codec
