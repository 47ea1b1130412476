// What decides a BERT encoder's forward pass besides its weights.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nf::encoder {

enum class Pooling : std::uint32_t { mean, cls, last };
enum class Precision : std::uint32_t { fp32, bf16, int8 };

// How one linear layer multiplies. An int8 model may keep some of its linear layers in bf16.
enum class Kind : std::uint32_t { f32, bf16, int8 };

// The linear layers of one transformer layer, in the order in which they run. Query, key and value are one.
enum Linear { kQkv, kAttentionOutput, kUp, kDown };
constexpr std::size_t kLinears = 4;

// Post-LayerNorm BERT: learned absolute positions, exact GELU, all tokens of type 0.
struct Shape {
  std::uint32_t layers = 0, width = 0, heads = 0, ffn = 0, vocab = 0, positions = 0, types = 0;
  float eps = 0.0f;
  Pooling pooling = Pooling::mean;
  std::uint32_t normalize = 1;
};

}  // namespace nf::encoder
