// Which of the encoder's kernels a target runs; and attention on every target that runs here, against float64 loops: odd counts of tokens and
// dimensions, each head by itself to the bit.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "base/aligned.h"
#include "encoder_values.h"
#include "harness.h"
#include "kernels/encoder_dispatch.h"
#include "oracle.h"
#include "simd/cpu.h"

namespace nf::test {
namespace {

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

TEST(encoder_kernels_of_each_target) {
  on_each_target([](const std::string& target) {
    const Note note("target", target);
    check_names(target);
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

}  // namespace
}  // namespace nf::test
