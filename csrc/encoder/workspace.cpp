#include "encoder/workspace.h"

#include <algorithm>

namespace nf::encoder {
namespace {

constexpr std::size_t kMostKept = std::size_t{64} << 20;

std::size_t aligned(std::size_t bytes) { return (bytes + kCacheLine - 1) / kCacheLine * kCacheLine; }

// Memory that a thread keeps between calls: a fresh block of some megabytes costs a page fault for every 4 KiB of it, at each call.
std::uint8_t* memory_of_this_thread(std::size_t bytes) {
  thread_local AlignedBuffer<std::uint8_t> kept;
  if (kept.size() < bytes || kept.size() > std::max(kMostKept, bytes)) {
    kept = AlignedBuffer<std::uint8_t>();
    kept = AlignedBuffer<std::uint8_t>(bytes);
  }
  return kept.data();
}

}  // namespace

Workspace Workspace::of_this_thread(const Model& model, const kernels::EncoderKernels& kernels, std::size_t tokens, std::size_t longest, int members, std::size_t block) {
  const Layout& layout = model.layout();
  const std::size_t head_dim = model.shape().width / model.shape().heads;
  const bool wide = model.precision() == Precision::fp32;
  const std::size_t value = wide ? sizeof(float) : sizeof(std::uint16_t);
  std::size_t ffn_value = wide ? sizeof(float) : sizeof(std::uint8_t);
  for (const LayerPlace& layer : layout.layers) {
    if (layer.linear[kDown].kind == Kind::bf16) ffn_value = sizeof(std::uint16_t);
  }
  Workspace all;
  all.block = block;
  all.attention_bytes = aligned((wide ? kernels.attention_f32->scratch_bytes : kernels.attention_bf16->scratch_bytes)(longest, head_dim));
  std::size_t total = 0;
  const auto take = [&](std::size_t bytes) {
    const std::size_t at = total;
    total += aligned(bytes);
    return at;
  };
  const std::size_t x = take(tokens * layout.width * sizeof(float));
  const std::size_t codes = take(tokens * layout.width * sizeof(std::uint16_t)), steps = take(2 * tokens * sizeof(float));
  const std::size_t qkv = take(tokens * 3 * layout.width * value), context = take(tokens * layout.width * value);
  const std::size_t context_codes = take(block * layout.width), context_steps = take(2 * block * sizeof(float));
  const std::size_t ffn = take(tokens * layout.ffn * ffn_value), ffn_steps = take(2 * tokens * sizeof(float));
  const std::size_t scratch = take(block * std::max(layout.width * sizeof(float), layout.ffn * sizeof(std::uint16_t)));
  const std::size_t own = take(all.attention_bytes * static_cast<std::size_t>(members));
  std::uint8_t* const memory = memory_of_this_thread(total);
  const auto steps_at = [&](std::size_t place, std::size_t rows) {
    float* const scale = reinterpret_cast<float*>(memory + place);
    return Steps{scale, scale + rows};
  };
  all.x = reinterpret_cast<float*>(memory + x);
  all.codes = memory + codes;
  all.halves = reinterpret_cast<std::uint16_t*>(memory + codes);
  all.steps = steps_at(steps, tokens);
  all.qkv = memory + qkv;
  all.context = memory + context;
  all.context_codes = memory + context_codes;
  all.context_steps = steps_at(context_steps, block);
  all.ffn = memory + ffn;
  all.ffn_steps = steps_at(ffn_steps, tokens);
  all.scratch = memory + scratch;
  all.attention = memory + own;
  return all;
}

}  // namespace nf::encoder
