// What this CPU and this operating system can run, found once per process.
#pragma once

#include <cstdint>

namespace nf::simd {

// One bit per capability that some target needs. A bit is set only when the operating system saves the registers too.
enum Feature : std::uint32_t {
  kAvx2 = 1u << 0,
  kFma = 1u << 1,
  kF16c = 1u << 2,
  kAvxVnni = 1u << 3,
  kAvx512F = 1u << 4,
  kAvx512Bw = 1u << 5,
  kAvx512Vl = 1u << 6,
  kAvx512Dq = 1u << 7,
  kAvx512Vnni = 1u << 8,
  kAmxTile = 1u << 9,
  kAmxInt8 = 1u << 10,
  kAmxBf16 = 1u << 11,
  kNeonDotprod = 1u << 12,
  kNeonI8mm = 1u << 13,
  kAvx512Bf16 = 1u << 14,
  kAvx512Fp16 = 1u << 15,
  kAvx512Vbmi = 1u << 16,
};

std::uint32_t cpu_features();

}  // namespace nf::simd
