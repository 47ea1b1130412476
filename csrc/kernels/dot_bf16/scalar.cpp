#include "kernels/dot_bf16/contract.h"

namespace nf::kernels {
namespace {

const char* target() { return "scalar"; }

float value_of(uint16_t code) {
  const uint32_t bits = static_cast<uint32_t>(code) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

void block(const uint16_t* high, const uint16_t* low, size_t nq, const void* rows, size_t nr, size_t dim, float* out, size_t out_stride) {
  const size_t pairs = (dim + 2 * kHalvesPairs - 1) / (2 * kHalvesPairs) * kHalvesPairs;
  for (size_t i = 0; i < nq; ++i) {
    const size_t place = i / kHalvesQueries * pairs * 2 * kHalvesQueries + i % kHalvesQueries * 2;
    for (size_t j = 0; j < nr; ++j) {
      const unsigned char* const row = static_cast<const unsigned char*>(rows) + j * dim * sizeof(uint16_t);
      float first = 0.0f, second = 0.0f;
      for (size_t d = 0; d < dim; ++d) {
        uint16_t code;
        __builtin_memcpy(&code, row + d * sizeof(code), sizeof(code));
        const size_t at = place + d / 2 * 2 * kHalvesQueries + d % 2;
        first += value_of(high[at]) * value_of(code);
        second += value_of(low[at]) * value_of(code);
      }
      out[i * out_stride + j] = first + second;
    }
  }
}

}  // namespace

const DotBf16 dot_bf16_scalar = {block, target};

}  // namespace nf::kernels
