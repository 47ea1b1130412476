#include "codec/rotation.h"

#include <cmath>
#include <vector>

#include "base/random.h"
#include "base/status.h"
#include "kernels/dispatch.h"
#include "parallel/pool.h"

namespace nf::codec {
namespace {

// SplitMix64: uniform in (0, 1), never an end.
class Uniform {
 public:
  explicit Uniform(std::uint64_t seed) : state_(seed) {}
  double next() {
    return (static_cast<double>(mix64(state_ += kGolden64) >> 11) + 0.5) * 0x1p-53;
  }

 private:
  std::uint64_t state_;
};

// Reflection k acts on the last dim - k axes: y -> sign * (y - axis (axis . y) * twice), which sends the axis it was drawn from to the first.
struct Reflection {
  std::vector<double> axis;
  double twice, sign;
};

Reflection draw(std::size_t size, Uniform& uniform) {
  constexpr double kTurn = 6.283185307179586;  // 2 pi
  Reflection drawn{std::vector<double>(size), 0.0, 0.0};
  double square = 0.0;
  for (double& value : drawn.axis) {
    const double radius = std::sqrt(-2.0 * std::log(uniform.next()));  // Box and Muller's normal deviate
    value = radius * std::cos(kTurn * uniform.next());
    square += value * value;
  }
  const double side = drawn.axis[0] < 0.0 ? -1.0 : 1.0, length = std::sqrt(square);
  // |x + side |x| e|^2 = 2 |x| (|x| + |x_0|)
  drawn.twice = 1.0 / (length * (length + std::fabs(drawn.axis[0])));
  drawn.axis[0] += side * length;
  drawn.sign = -side;
  return drawn;
}

void reflect(const Reflection& by, double* y) {
  double along = 0.0;
  for (std::size_t i = 0; i < by.axis.size(); ++i) along += by.axis[i] * y[i];
  along *= by.twice;
  for (std::size_t i = 0; i < by.axis.size(); ++i) y[i] = by.sign * (y[i] - along * by.axis[i]);
}

}  // namespace

Rotation::Rotation(std::size_t dim, std::uint64_t seed, int threads) : dim_(dim), matrix_(dim * dim) {
  Uniform uniform(seed);
  std::vector<Reflection> reflections;
  for (std::size_t size = dim; size > 0; --size) reflections.push_back(draw(size, uniform));
  raise_if_bad(parallel::parallel_for(dim, threads, [&](std::size_t begin, std::size_t end, std::size_t) {
    std::vector<double> column(dim_);
    for (std::size_t j = begin; j < end; ++j) {
      column.assign(dim_, 0.0);
      column[j] = 1.0;
      for (std::size_t k = 0; k < dim_; ++k) reflect(reflections[k], column.data() + k);
      for (std::size_t i = 0; i < dim_; ++i) matrix_[i * dim_ + j] = static_cast<float>(column[i]);
    }
  }));
}

void Rotation::apply(const float* rows, std::size_t count, float* out) const {
  kernels::dot_f32().block(rows, dim_, count, matrix_.data(), dim_, dim_, dim_, out, dim_);
}

}  // namespace nf::codec
