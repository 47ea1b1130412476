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

// What becomes of a sum. `gelu` is x * Phi(x), Phi the normal distribution function.
enum class LinearOut { f32, bf16, gelu_f32, gelu_bf16 };

}  // namespace nf::kernels
