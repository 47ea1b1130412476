// The encoder's products on every target that runs here, against float64 loops: odd counts of rows and panels, memory that ends where the contract
// ends, each row by itself to the bit.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "base/aligned.h"
#include "base/bf16.h"
#include "encoder_values.h"
#include "harness.h"
#include "kernels/encoder_dispatch.h"
#include "oracle.h"

namespace nf::test {
namespace {

using kernels::kPanelColumns;
using kernels::LinearOut;

constexpr LinearOut kOuts[] = {LinearOut::f32, LinearOut::bf16, LinearOut::gelu_f32, LinearOut::gelu_bf16};
constexpr std::size_t kRowCounts[] = {1, 2, 15, 16, 17, 31, 33, 65}, kPanelCounts[] = {1, 2, 7};

bool is_gelu(LinearOut out) { return out == LinearOut::gelu_f32 || out == LinearOut::gelu_bf16; }
bool is_wide(LinearOut out) { return out == LinearOut::f32 || out == LinearOut::gelu_f32; }

// What contracts allow between y and its output.
double slack_of(LinearOut out, double exact, double y_slack) {
  double slack = 1.13 * y_slack + 1e-12;  // the steepest slope of gelu is 1.13
  if (is_gelu(out)) slack += 1e-5 + std::ldexp(std::fabs(exact), -20);
  if (out == LinearOut::f16) return slack + std::ldexp(std::fabs(exact) + slack, -11) + 0x1p-25;
  if (!is_wide(out)) slack += std::ldexp(std::fabs(exact) + slack, -8);
  return slack;
}

// Weights (columns, depth) as the kernels want them, `together` depths side by side.
template <typename T>
AlignedBuffer<T> packed(const std::vector<T>& weights, std::size_t columns, std::size_t depth, std::size_t together) {
  AlignedBuffer<T> out(columns * depth);
  for (std::size_t c = 0; c < columns; ++c) {
    for (std::size_t k = 0; k < depth; ++k) {
      T* const panel = out.data() + c / kPanelColumns * kPanelColumns * depth;
      panel[(k / together * kPanelColumns + c % kPanelColumns) * together + k % together] = weights[c * depth + k];
    }
  }
  return out;
}

// An output with room between rows that nobody may write.
struct Output {
  std::size_t columns, stride;
  bool wide, float16;
  Tight<float> floats;
  Tight<std::uint16_t> halves;
  Output(std::size_t rows, std::size_t columns_, LinearOut out)
      : columns(columns_), stride(columns_ + 3), wide(is_wide(out)), float16(out == LinearOut::f16), floats((rows - 1) * stride + columns, 1), halves((rows - 1) * stride + columns, 1) {
    std::fill_n(floats.data(), (rows - 1) * stride + columns, 77.0f);
    std::fill_n(halves.data(), (rows - 1) * stride + columns, float16 ? to_f16(77.0) : to_bf16(77.0f));
  }
  void* data() { return wide ? static_cast<void*>(floats.data()) : halves.data(); }
  double at(std::size_t row, std::size_t column) const {
    const std::size_t place = row * stride + column;
    if (float16) return of_f16(halves[place]);
    return wide ? static_cast<double>(floats[place]) : static_cast<double>(from_bf16(halves[place]));
  }
  bool gaps_untouched(std::size_t rows) const {
    for (std::size_t row = 0; row + 1 < rows; ++row) {
      for (std::size_t j = columns; j < stride; ++j) {
        if (at(row, j) != 77.0) return false;
      }
    }
    return true;
  }
};

template <typename Exact, typename Run>
void check_linear(std::size_t rows, std::size_t panels, LinearOut out, const Exact& exact, const Run& run) {
  const std::size_t columns = panels * kPanelColumns;
  Output all(rows, columns, out), alone(1, columns, out);
  run(std::size_t{0}, rows, all);
  std::size_t wrong = 0, different = 0;
  for (std::size_t row = 0; row < rows; ++row) {
    run(row, std::size_t{1}, alone);
    for (std::size_t c = 0; c < columns; ++c) {
      double y_slack;
      double value = exact(row, c, &y_slack);
      if (is_gelu(out)) value = gelu(value);
      wrong += !(std::fabs(all.at(row, c) - value) <= slack_of(out, value, y_slack));
      different += all.at(row, c) != alone.at(0, c);
    }
  }
  CHECK(wrong == 0);
  CHECK(different == 0);
  CHECK(all.gaps_untouched(rows));
}

void linear_i8(std::size_t rows, std::size_t panels, std::size_t depth, LinearOut out, Random& random) {
  const Note note("linear_i8: rows", rows, "panels", panels, "depth", depth, "out", static_cast<int>(out));
  const std::size_t columns = panels * kPanelColumns, stride = depth + 5;
  std::uniform_int_distribution<int> code(0, 255), weight(-127, 127);
  std::normal_distribution<float> normal;
  Tight<std::uint8_t> input((rows - 1) * stride + depth, 1);
  for (std::size_t i = 0; i < (rows - 1) * stride + depth; ++i) input[i] = static_cast<std::uint8_t>(rows == 2 ? 255 : code(random));
  std::vector<std::int8_t> weights(columns * depth);
  for (auto& each : weights) each = static_cast<std::int8_t>(rows == 2 ? 127 : weight(random));
  const auto panel = packed(weights, columns, depth, 4);
  std::vector<float> scale(rows), low(rows), column_scale(columns), column_sum(columns), bias(columns);
  for (auto& each : scale) each = 0.02f * std::fabs(normal(random));
  for (auto& each : low) each = -std::fabs(normal(random));
  for (auto& each : column_scale) each = 0.002f * std::fabs(normal(random));
  for (auto& each : column_sum) each = normal(random);
  for (auto& each : bias) each = normal(random);
  const auto exact = [&](std::size_t row, std::size_t c, double* slack) {
    std::int64_t acc = 0;
    for (std::size_t k = 0; k < depth; ++k) acc += std::int64_t{input[row * stride + k]} * weights[c * depth + k];
    const double product = static_cast<double>(acc) * static_cast<double>(scale[row]) * static_cast<double>(column_scale[c]);
    const double beside = static_cast<double>(low[row]) * static_cast<double>(column_sum[c]);
    *slack = std::ldexp(std::fabs(product) + std::fabs(beside) + std::fabs(static_cast<double>(bias[c])), -21);
    return product + beside + static_cast<double>(bias[c]);
  };
  check_linear(rows, panels, out, exact, [&](std::size_t row, std::size_t count, Output& to) {
    const kernels::LinearI8Job job{input.data() + row * stride, stride, scale.data() + row, low.data() + row, count, panel.data(), depth, panels, column_scale.data(),
                                   column_sum.data(), bias.data(), to.data(), to.stride};
    const kernels::LinearI8& kernel = *kernels::encoder_kernels().linear_i8;
    out == LinearOut::f16 ? kernel.run_f16(&job) : kernel.run(&job, out);
  });
}

template <typename T>
void linear_float(std::size_t rows, std::size_t panels, std::size_t depth, LinearOut out, Random& random) {
  const Note note("linear of", sizeof(T), "bytes: rows", rows, "panels", panels, "depth", depth, "out", static_cast<int>(out));
  const std::size_t columns = panels * kPanelColumns, stride = depth + 5;
  Tight<T> input((rows - 1) * stride + depth, 1);
  for (std::size_t i = 0; i < (rows - 1) * stride + depth; ++i) input[i] = drawn<T>(random);
  std::vector<T> weights(columns * depth);
  for (auto& each : weights) each = drawn<T>(random, 0.1f);
  const auto panel = packed(weights, columns, depth, 4 / sizeof(T));
  std::vector<float> bias(columns);
  for (auto& each : bias) each = drawn<float>(random);
  const auto exact = [&](std::size_t row, std::size_t c, double* slack) {
    double sum = static_cast<double>(bias[c]), size = std::fabs(sum);
    for (std::size_t k = 0; k < depth; ++k) {
      const double product = widened(input[row * stride + k]) * widened(weights[c * depth + k]);
      sum += product;
      size += std::fabs(product);
    }
    *slack = 1.02 * std::ldexp(static_cast<double>(depth + 2) * size, -24);
    return sum;
  };
  check_linear(rows, panels, out, exact, [&](std::size_t row, std::size_t count, Output& to) {
    if constexpr (sizeof(T) == 2) {
      const kernels::LinearBf16Job job{input.data() + row * stride, stride, count, panel.data(), depth, panels, bias.data(), to.data(), to.stride};
      kernels::encoder_kernels().linear_bf16->run(&job, out);
    } else {
      const kernels::LinearF32Job job{input.data() + row * stride, stride, count, panel.data(), depth, panels, bias.data(), to.floats.data(), to.stride};
      kernels::encoder_kernels().linear_f32->run(&job, out);
    }
  });
}

TEST(encoder_linear_kernels) {
  on_each_target([](const std::string& target) {
    const Note note("target", target);
    Random random(7);
    for (const LinearOut out : kOuts) {
      for (const std::size_t rows : kRowCounts) {
        for (const std::size_t panels : kPanelCounts) {
          const std::size_t depth = 64 * (1 + (rows + panels) % 4);
          linear_i8(rows, panels, depth, out, random);
          linear_float<std::uint16_t>(rows, panels, depth, out, random);
          if (is_wide(out)) linear_float<float>(rows, panels, depth, out, random);
        }
      }
    }
    linear_i8(33, 2, 1536, LinearOut::f32, random);
    if (kernels::encoder_kernels().linear_i8->run_f16 == nullptr) return;
    for (const std::size_t rows : kRowCounts) {
      for (const std::size_t panels : kPanelCounts) linear_i8(rows, panels, 64 * (1 + rows % 3), LinearOut::f16, random);
    }
  });
}

}  // namespace
}  // namespace nf::test
