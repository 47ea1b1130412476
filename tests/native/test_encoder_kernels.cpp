// The encoder's kernels on every target that runs here, against float64 loops: odd counts of rows, panels, tokens and dimensions, memory that ends
// where the contract ends, each row by itself to the bit, and which target ran.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "base/aligned.h"
#include "base/bf16.h"
#include "harness.h"
#include "kernels/encoder_dispatch.h"
#include "oracle.h"
#include "simd/cpu.h"

namespace nf::test {
namespace {

using kernels::kPanelColumns;
using kernels::LinearOut;

constexpr LinearOut kOuts[] = {LinearOut::f32, LinearOut::bf16, LinearOut::gelu_f32, LinearOut::gelu_bf16};
constexpr std::size_t kRowCounts[] = {1, 2, 15, 16, 17, 31, 33, 65}, kPanelCounts[] = {1, 2, 7};

bool is_gelu(LinearOut out) { return out == LinearOut::gelu_f32 || out == LinearOut::gelu_bf16; }
bool is_wide(LinearOut out) { return out == LinearOut::f32 || out == LinearOut::gelu_f32; }

// float16 as a number: sign, 5 bits of exponent, 10 of fraction.
double of_f16(std::uint16_t half) {
  const int exponent = half >> 10 & 31, fraction = half & 1023;
  const double size = exponent == 31 ? (fraction == 0 ? HUGE_VAL : std::nan("")) : exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return (half >> 15) != 0 ? -size : size;
}

// To nearest, by looking among all of them.
std::uint16_t to_f16(double value) {
  std::uint16_t low = 0, high = 0x7BFF;
  while (high - low > 1) {
    const auto middle = static_cast<std::uint16_t>((low + high) / 2);
    (of_f16(middle) <= std::fabs(value) ? low : high) = middle;
  }
  const std::uint16_t nearest = std::fabs(value) - of_f16(low) <= of_f16(high) - std::fabs(value) ? low : high;
  return static_cast<std::uint16_t>(nearest | (value < 0.0 ? 0x8000 : 0));
}

double gelu(double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }

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
double widened(T value) {
  if constexpr (sizeof(T) == 2) {
    return static_cast<double>(from_bf16(value));
  } else {
    return static_cast<double>(value);
  }
}

template <typename T>
T drawn(Random& random, float size = 1.0f) {
  const float value = size * std::normal_distribution<float>()(random);
  if constexpr (sizeof(T) == 2) {
    return to_bf16(value);
  } else {
    return value;
  }
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

template <typename T>
const kernels::Attention<T>& attention_of() {
  if constexpr (sizeof(T) == 2) {
    return *kernels::encoder_kernels().attention_bf16;
  } else {
    return *kernels::encoder_kernels().attention_f32;
  }
}

template <typename T>
void attention(std::size_t tokens, std::size_t heads, std::size_t head_dim, float size, Random& random) {
  const Note note("attention of", sizeof(T), "bytes: tokens", tokens, "heads", heads, "head_dim", head_dim, "size", size);
  const std::size_t width = heads * head_dim + 1, stride = 3 * width + 2, out_stride = width + 3;
  Tight<T> qkv(tokens * stride, 1), out(tokens * out_stride, 1);
  for (std::size_t i = 0; i < tokens * stride; ++i) qkv[i] = drawn<T>(random, i % stride < width ? size : 1.0f);
  for (std::size_t i = 0; i < tokens * out_stride; ++i) out[i] = drawn<T>(random);
  const auto& kernel = attention_of<T>();
  AlignedBuffer<std::uint8_t> scratch(kernel.scratch_bytes(tokens, head_dim));
  std::memset(scratch.data(), 0xFF, scratch.size());
  const auto run = [&](std::size_t first, std::size_t count) {
    const kernels::AttentionJob<T> job{qkv.data() + first * head_dim, stride, width, 2 * width, tokens, count, head_dim, out.data() + first * head_dim, out_stride, scratch.data()};
    kernel.run(&job);
  };
  const std::vector<T> before(out.data(), out.data() + tokens * out_stride);
  run(0, heads);
  std::size_t wrong = 0, written = 0;
  for (std::size_t i = 0; i < tokens; ++i) {
    for (std::size_t h = 0; h < heads; ++h) {
      std::vector<double> weight(tokens);
      double most = -1e300, total = 0.0, sizes = 0.0;
      for (std::size_t j = 0; j < tokens; ++j) {
        double product = 0.0, terms = 0.0;
        for (std::size_t d = 0; d < head_dim; ++d) {
          const double term = widened(qkv[i * stride + h * head_dim + d]) * widened(qkv[j * stride + width + h * head_dim + d]);
          product += term;
          terms += std::fabs(term);
        }
        weight[j] = product;
        most = std::max(most, product);
        sizes = std::max(sizes, terms);
      }
      for (double& each : weight) total += each = std::exp2(each - most);
      const double relative = (sizeof(T) == 4 ? 0x1p-18 : std::string(kernel.target()) == "amx" ? 0x1p-6 : 0x1p-7) + 2.0 * static_cast<double>(head_dim) * 0x1p-22 * sizes;
      for (std::size_t d = 0; d < head_dim; ++d) {
        double value = 0.0, largest = 0.0;
        for (std::size_t j = 0; j < tokens; ++j) {
          const double v = widened(qkv[j * stride + 2 * width + h * head_dim + d]);
          value += weight[j] / total * v;
          largest = std::max(largest, std::fabs(v));
        }
        const double rounding = sizeof(T) == 2 ? std::ldexp(std::fabs(value) + relative * largest, -8) : std::ldexp(static_cast<double>(tokens) * largest, -23);
        wrong += !(std::fabs(widened(out[i * out_stride + h * head_dim + d]) - value) <= relative * largest + rounding);
      }
    }
    for (std::size_t j = heads * head_dim; j < out_stride; ++j) written += out[i * out_stride + j] != before[i * out_stride + j];
  }
  CHECK(wrong == 0);
  CHECK(written == 0);
  const std::vector<T> together(out.data(), out.data() + tokens * out_stride);
  for (std::size_t h = 0; h < heads; ++h) run(h, 1);
  CHECK(std::equal(together.begin(), together.end(), out.data()));
}

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

// The kernels of a target come from its own files or its parents'.
void check_names(const std::string& target) {
  const kernels::EncoderKernels kernels = kernels::encoder_kernels();
  if (target == "amx") {
    CHECK(std::string(kernels.linear_i8->target()) == "amx");
    CHECK(std::string(kernels.linear_bf16->target()) == "amx");
    CHECK(std::string(kernels.attention_bf16->target()) == "amx");
    // float16 is beside AMX on every such core, but may be hidden by a virtual machine.
#if defined(NF_WITHOUT_AVX512FP16)
    const bool float16 = false;  // nor does every compiler know it
#else
    const bool float16 = (simd::cpu_features() & simd::kAvx512Fp16) != 0;
#endif
    CHECK(std::string(kernels.rows->target()) == (float16 ? "avx512fp16" : "avx512"));
    CHECK((kernels.rows->gelu_codes != nullptr) == float16);
  }
  if (target == "avxvnni") CHECK(std::string(kernels.linear_i8->target()) == "avxvnni");
  const std::string plain = target == "avxvnni" ? "avx2" : target;
  if (plain == "scalar" || plain == "avx2" || plain == "neon_dotprod") {
    if (plain == target) CHECK(std::string(kernels.linear_i8->target()) == plain);
    for (const char* name : {kernels.linear_bf16->target(), kernels.linear_f32->target(), kernels.attention_bf16->target(), kernels.attention_f32->target(), kernels.rows->target()}) {
      CHECK(std::string(name) == plain);
    }
  }
}

TEST(encoder_linear_kernels) {
  on_each_target([](const std::string& target) {
    const Note note("target", target);
    check_names(target);
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

TEST(encoder_attention_kernels) {
  on_each_target([](const std::string& target) {
    const Note note("target", target);
    Random random(8);
    for (const std::size_t tokens : {1, 2, 16, 17, 31, 33, 48, 65}) {
      for (const std::size_t head_dim : {1, 7, 32, 33, 64}) {
        attention<std::uint16_t>(tokens, 2, head_dim, 0.3f, random);
        attention<float>(tokens, 2, head_dim, 0.3f, random);
      }
    }
    attention<std::uint16_t>(70, 3, 32, 30.0f, random);  // nearly one weight per row: far differences, exponents out of range
    attention<float>(70, 3, 32, 30.0f, random);
    // Some rows of a block leave the range of sixteen-bit scores, some do not; with more than 32 dimensions, too.
    for (const float size : {3.0f, 6.0f, 12.0f}) {
      attention<std::uint16_t>(167, 2, 32, size, random);
      attention<std::uint16_t>(45, 2, 64, size, random);
    }
  });
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
