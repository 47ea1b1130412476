#include "kernels/estimate_1bit/contract.h"

namespace nf::kernels {
namespace {

const char* target() { return "scalar"; }

float from_bf16(uint16_t code) {
  const uint32_t bits = static_cast<uint32_t>(code) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

uint32_t block(const Estimate1BitQuery* query, const Estimate1BitRows* rows, float base, float limit, float* out) {
  if (rows->ahead != nullptr) {
    for (size_t at = 0; at < rows->ahead_bytes; at += 64) __builtin_prefetch(rows->ahead + at);
  }
  uint32_t sums[kSignBlockRows] = {};
  const uint8_t *tables = query->tables, *codes = rows->codes;
  for (size_t g = 0; g < query->groups; ++g, tables += kSignGroupBytes, codes += kSignGroupBytes) {
    for (size_t j = 0; j < kSignGroupBytes; ++j) {
      sums[j] += tables[codes[j] & 15];
      sums[kSignGroupBytes + j] += tables[codes[j] >> 4];
    }
  }
  uint32_t below = 0;
  for (size_t i = 0; i < kSignBlockRows; ++i) {
    const float product = query->step * static_cast<float>(sums[i]) + query->shift;
    out[i] = base + (from_bf16(rows->add[i]) + from_bf16(rows->factor[i]) * product);
    below |= (out[i] < limit ? 1u : 0u) << i;
  }
  return below;
}

void tables(const float* values, size_t groups, float scale, uint8_t* out) {
  for (size_t g = 0; g < groups; ++g, values += kSignGroupDims, out += kSignGroupBytes) {
    for (size_t p = 0; p < kSignGroupBytes; ++p) {
      float sum = 0.5f;
      for (size_t j = 0; j < kSignGroupDims; ++j) {
        const float value = scale * values[j];
        const float signed_value = (p >> j & 1) != 0 ? value : -value;
        sum += signed_value > 0.0f ? signed_value : 0.0f;
      }
      out[p] = static_cast<uint8_t>(static_cast<int32_t>(sum));
    }
  }
}

}  // namespace

const Estimate1Bit estimate_1bit_scalar = {block, tables, target};

}  // namespace nf::kernels
