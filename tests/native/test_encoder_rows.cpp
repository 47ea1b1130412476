// The encoder's work on rows, LayerNorm and codes, on every target that runs here, against float64 loops: odd widths, sizes from 0 to 10,000, each row
// by itself to the bit.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "base/bf16.h"
#include "encoder_values.h"
#include "harness.h"
#include "kernels/encoder_dispatch.h"
#include "oracle.h"

namespace nf::test {
namespace {

// Codes say low + scale * code within half a step.
bool coded(const std::vector<double>& values, const std::uint8_t* codes, float scale, float low) {
  const double step = static_cast<double>(scale);
  for (std::size_t j = 0; j < values.size(); ++j) {
    if (!(std::fabs(static_cast<double>(low) + step * codes[j] - values[j]) <= (0.5 + 0x1p-12) * step + 0x1p-22 * std::fabs(values[j]) + 0x1p-100)) return false;
  }
  return true;
}

void norm(std::size_t rows, std::size_t width, bool codes, bool halves, bool factor, float size, Random& random) {
  const Note note("norm: rows", rows, "width", width, "codes", codes, "halves", halves, "factor", factor, "size", size);
  const std::size_t padded = (width + 63) / 64 * 64, stride = padded + 64;
  std::vector<float> x(rows * stride, 0.0f), add(rows * stride, 0.0f), gamma(padded, 0.0f), beta(padded, 0.0f), factors(padded, 1.0f), scale(rows), low(rows);
  for (std::size_t i = 0; i < rows * stride; ++i) {
    if (i % stride >= width) continue;
    x[i] = drawn<float>(random, size);
    add[i] = drawn<float>(random, size);
  }
  for (std::size_t j = 0; j < width; ++j) {
    gamma[j] = drawn<float>(random);
    beta[j] = drawn<float>(random);
    factors[j] = std::fabs(drawn<float>(random)) + 0.1f;
  }
  std::vector<std::uint8_t> coded_rows(rows * stride, 9);
  std::vector<std::uint16_t> half_rows(rows * stride, 9);
  const std::vector<float> given = x;
  const auto run = [&](std::size_t first, std::size_t count) {
    const kernels::RowCodes out{codes ? coded_rows.data() + first * stride : nullptr, scale.data() + first, low.data() + first, halves ? half_rows.data() + first * stride : nullptr, stride,
                                factor ? factors.data() : nullptr};
    const kernels::NormJob job{x.data() + first * stride, stride, add.data() + first * stride, stride, count, width, padded, gamma.data(), beta.data(), 1e-12f, out};
    kernels::encoder_kernels().rows->norm(&job);
  };
  run(0, rows);
  std::size_t wrong = 0;
  for (std::size_t row = 0; row < rows; ++row) {
    double mean = 0.0, variance = 1e-12;
    std::vector<double> sum(width), values(width);
    for (std::size_t j = 0; j < width; ++j) mean += (sum[j] = static_cast<double>(given[row * stride + j]) + static_cast<double>(add[row * stride + j])) / static_cast<double>(width);
    double largest = 0.0;
    for (const double each : sum) variance += (each - mean) * (each - mean) / static_cast<double>(width);
    for (const double each : sum) largest = std::max(largest, std::fabs(each));
    for (std::size_t j = 0; j < width; ++j) {
      const double y = (sum[j] - mean) / std::sqrt(variance) * static_cast<double>(gamma[j]) + static_cast<double>(beta[j]), got = static_cast<double>(x[row * stride + j]);
      wrong += !(std::fabs(got - y) <= 0x1p-18 * (1.0 + largest / std::sqrt(variance)) * (std::fabs(static_cast<double>(gamma[j])) + std::fabs(static_cast<double>(beta[j]))));
      values[j] = got * (factor ? static_cast<double>(factors[j]) : 1.0);
      if (halves) wrong += half_rows[row * stride + j] != to_bf16(x[row * stride + j]);
    }
    for (std::size_t j = width; j < padded; ++j) wrong += x[row * stride + j] != 0.0f;
    if (codes) wrong += !coded(values, coded_rows.data() + row * stride, scale[row], low[row]);
    for (std::size_t j = padded; j < stride; ++j) wrong += coded_rows[row * stride + j] != 9 || half_rows[row * stride + j] != 9;
  }
  CHECK(wrong == 0);
  const std::vector<float> together = x;
  x = given;
  for (std::size_t row = 0; row < rows; ++row) run(row, 1);
  CHECK(x == together);
}

void quantize(std::size_t rows, std::size_t padded, float size, Random& random) {
  const Note note("quantize: rows", rows, "padded", padded, "size", size);
  const std::size_t stride = padded + 3;
  Tight<std::uint16_t> input((rows - 1) * stride + padded, 1), gelus((rows - 1) * stride + padded, 1);
  for (std::size_t i = 0; i < (rows - 1) * stride + padded; ++i) {
    input[i] = drawn<std::uint16_t>(random, size);
    gelus[i] = to_bf16(static_cast<float>(gelu(widened(input[i]))));
  }
  std::vector<float> scale(rows), low(rows);
  Tight<std::uint8_t> codes((rows - 1) * stride + padded, 1);
  const auto check = [&](bool from_low) {
    const auto& given = from_low ? gelus : input;
    const kernels::QuantizeJob job{given.data(), stride, rows, padded, codes.data(), stride, scale.data(), low.data()};
    (from_low ? kernels::encoder_kernels().rows->quantize_gelu : kernels::encoder_kernels().rows->quantize)(&job);
    for (std::size_t row = 0; row < rows; ++row) {
      std::vector<double> values(padded);
      for (std::size_t j = 0; j < padded; ++j) values[j] = widened(given[row * stride + j]);
      CHECK(coded(values, codes.data() + row * stride, scale[row], low[row]));
      if (from_low) CHECK(low[row] == kernels::kGeluLow);
      const double least = *std::min_element(values.begin(), values.end()), most = *std::max_element(values.begin(), values.end());
      CHECK(static_cast<double>(scale[row]) * 255.0 <= (std::max(most, from_low ? 0.0 : most) - (from_low ? static_cast<double>(kernels::kGeluLow) : least)) * 1.000001);
    }
  };
  check(false);
  check(true);
}

// GELU and codes at once: half a step of the codes, and what the contract allows the float16 arithmetic.
void gelu_codes(std::size_t rows, std::size_t padded, float size, Random& random) {
  const Note note("gelu_codes: rows", rows, "padded", padded, "size", size);
  const auto run = kernels::encoder_kernels().rows->gelu_codes;
  if (run == nullptr) return;
  const std::size_t stride = padded + 3;
  Tight<std::uint16_t> input((rows - 1) * stride + padded, 1);
  for (std::size_t i = 0; i < (rows - 1) * stride + padded; ++i) input[i] = to_f16(static_cast<double>(drawn<float>(random, size)));
  input[0] = 0x7C00;  // infinite
  for (std::size_t j = 0; j < padded; ++j) input[stride + j] = to_f16(-16.0 * static_cast<double>(j + 1) / static_cast<double>(padded));
  std::vector<float> scale(rows), low(rows), scale_alone(1), low_alone(1);
  Tight<std::uint8_t> codes((rows - 1) * stride + padded, 1), alone(padded, 1);
  const kernels::QuantizeJob job{input.data(), stride, rows, padded, codes.data(), stride, scale.data(), low.data()};
  run(&job);
  std::size_t wrong = 0, different = 0;
  for (std::size_t row = 0; row < rows; ++row) {
    const double step = static_cast<double>(scale[row]);
    double most = 0.0;
    for (std::size_t j = 0; j < padded; ++j) {
      const double x = std::min(of_f16(input[row * stride + j]), 65504.0), code = codes[row * stride + j];
      wrong += !(std::fabs(static_cast<double>(low[row]) + step * code - gelu(x)) <= 0.8 * step + 1e-4);
      most = std::max(most, x);
    }
    CHECK(low[row] == kernels::kGeluLow);
    CHECK(std::fabs(step * 255.0 / (most - static_cast<double>(kernels::kGeluLow)) - 1.0) < 0x1p-10);
    const kernels::QuantizeJob one{input.data() + row * stride, stride, 1, padded, alone.data(), padded, scale_alone.data(), low_alone.data()};
    run(&one);
    different += scale_alone[0] != scale[row] || !std::equal(alone.data(), alone.data() + padded, codes.data() + row * stride);
  }
  CHECK(wrong == 0);
  CHECK(different == 0);
}

TEST(encoder_row_kernels) {
  on_each_target([](const std::string& target) {
    const Note note("target", target);
    Random random(9);
    for (const std::size_t width : {1, 3, 15, 16, 17, 63, 64, 65, 100, 384, 385}) {
      for (const float size : {1.0f, 1e-3f, 1e4f}) {
        norm(5, width, false, false, false, size, random);
        norm(5, width, true, false, false, size, random);
        norm(5, width, true, false, true, size, random);
        norm(5, width, false, true, false, size, random);
      }
    }
    for (const std::size_t padded : {64, 128, 384, 1536}) {
      for (const float size : {0.0f, 1e-3f, 1.0f, 100.0f}) {
        quantize(7, padded, size, random);
        gelu_codes(7, padded, size, random);
      }
    }
  });
}

}  // namespace
}  // namespace nf::test
