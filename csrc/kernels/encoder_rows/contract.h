// encoder_rows: what happens to one token's row between two products: LayerNorm and quantization.
//
// norm: x = (x + add - mean) / sqrt(variance + eps) * gamma + beta over `width` values, float32, off by at most 2^-18 (1 + |value| / deviation)
//   deviations; and, where asked for, the same row once more as codes or as bfloat16. Columns from `width` to `padded` become zero.
// quantize: bfloat16 rows to codes.    quantize_gelu: the same for rows that are nowhere below kGeluLow, which is every row's low.
// gelu_codes: float16 rows x to the codes of gelu(x) = x * Phi(x) from kGeluLow to the greatest max(x, 0), in float16 arithmetic: off by at most 0.8 steps
// and 1e-4. Infinite x count as 65,504.
//
// A code from 0 to 255 says low + scale * code: low is the row's least value (as far as it matters: that of its first `width` columns, or of
// all `padded`), scale = (greatest - low) / 255. Each is off by at most 0.5 + 2^-12 steps; where the row spans less than kLeastSpan, scale and codes are zero. Codes of columns
// from `width` on are anything: their weights are zero. With a `factor` per column, what is coded is value * factor.
// A row's result depends on that row alone, to the bit, on any one target. Rows may have any alignment; `padded` is a multiple of 64 and no
// stride is below it; input columns from `width` on are zero and may be read; factors, gamma and beta have `padded` values, zero behind `width` (factors: one).
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace nf::kernels {

// Below the least value of gelu, -0.169971, by more than bfloat16 loses there.
constexpr float kGeluLow = -0.171875f;
// 255 / span would overflow below.
constexpr float kLeastSpan = 0x1p-100f;

// Where a row goes a second time: codes with their scale, bfloat16, or nowhere.
struct RowCodes {
  uint8_t* codes;   // null: none
  float* scale;     // one per row, as is
  float* low;
  uint16_t* halves;  // null: none
  size_t stride;    // values from row to row
  const float* factor;  // per column, for codes; null: one
};

struct NormJob {
  float* x;
  size_t x_stride;
  const float* add;
  size_t add_stride;
  size_t rows, width, padded;
  const float* gamma;  // padded values, as beta
  const float* beta;
  float eps;
  RowCodes out;
};

struct QuantizeJob {
  const uint16_t* input;  // bfloat16; float16 for gelu_codes
  size_t input_stride;
  size_t rows, padded;
  uint8_t* codes;
  size_t codes_stride;
  float* scale;
  float* low;
};

struct EncoderRows {
  void (*norm)(const NormJob* job);
  void (*quantize)(const QuantizeJob* job);
  void (*quantize_gelu)(const QuantizeJob* job);
  void (*gelu_codes)(const QuantizeJob* job);  // null: this target has none
  const char* (*target)();
};

extern const EncoderRows encoder_rows_scalar;
#if defined(__x86_64__)
extern const EncoderRows encoder_rows_avx2;
extern const EncoderRows encoder_rows_avx512;
extern const EncoderRows encoder_rows_avx512fp16;
#elif defined(__aarch64__)
extern const EncoderRows encoder_rows_neon_dotprod;
#endif

}  // namespace nf::kernels
