// What the three linear kernels of the encoder share: the packing of weights and what happens to a sum.
//
// A weight matrix (columns, depth) is cut into panels of sixteen columns. A panel is depth * 16 values, and every 64 bytes of it hold the next
// depths of the sixteen columns, column by column: four of int8, two of bfloat16, one of float32. So one register, or one row of a tile, holds
// the same depths of sixteen columns, which suits AVX2, AVX-512, VNNI, AMX and NEON alike. `depth` is a multiple of 64; places beyond the
// model's own are zero on both sides.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace nf::kernels {

constexpr size_t kPanelColumns = 16, kDepthUnit = 64;

// What becomes of a sum. `gelu` is x * Phi(x), Phi the normal distribution function. float16 is what kernels with an entry of its own for it make.
enum class LinearOut { f32, bf16, gelu_f32, gelu_bf16, f16 };

namespace {

template <LinearOut kOut>
struct OutIs {
  static constexpr LinearOut value = kOut;
};

// Calls `run` with the kind of output as a type, for what is compiled apart for each. Internal: every target has its own copy.
template <typename Run>
inline void with_out(LinearOut out, const Run& run) {
  switch (out) {
    case LinearOut::f32: return run(OutIs<LinearOut::f32>());
    case LinearOut::bf16: return run(OutIs<LinearOut::bf16>());
    case LinearOut::gelu_f32: return run(OutIs<LinearOut::gelu_f32>());
    case LinearOut::gelu_bf16: return run(OutIs<LinearOut::gelu_bf16>());
    case LinearOut::f16: return;
  }
}

}  // namespace
}  // namespace nf::kernels
