// Stands in for the compiler's <immintrin.h>: SIMDe's plain-C twin of each intrinsic, and the few that SIMDe 0.7.4 (Debian 12) lacks,
// written from the operation sections of Intel's intrinsics guide.
#pragma once

#define SIMDE_ENABLE_NATIVE_ALIASES
#define SIMDE_NO_NATIVE
#include <simde/x86/avx512.h>
#include <simde/x86/fma.h>
#include <stdint.h>
#include <string.h>

#include "amx.h"

// Some of these are declared as aliases of functions that this version does not have.
#undef _mm512_maskz_loadu_ps
#undef _mm256_maskz_loadu_epi8
#undef _mm512_extractf32x8_ps
#undef _mm512_extracti32x8_epi32
#undef _mm512_madd_epi16

typedef uint16_t __mmask16;
typedef uint32_t __mmask32;

// Masked-out elements become zero and their memory is not read.
inline simde__m512 _mm512_maskz_loadu_ps(__mmask16 mask, const void* p) {
  float values[16];
  for (int i = 0; i < 16; ++i) values[i] = (mask >> i & 1) != 0 ? static_cast<const float*>(p)[i] : 0.0f;
  return simde_mm512_loadu_ps(values);
}

inline simde__m256i _mm256_maskz_loadu_epi8(__mmask32 mask, const void* p) {
  int8_t values[32];
  for (int i = 0; i < 32; ++i) values[i] = (mask >> i & 1) != 0 ? static_cast<const int8_t*>(p)[i] : static_cast<int8_t>(0);
  return simde_mm256_loadu_si256(reinterpret_cast<const simde__m256i*>(values));
}

inline simde__m256 _mm512_extractf32x8_ps(simde__m512 v, int half) {
  float values[16];
  simde_mm512_storeu_ps(values, v);
  return simde_mm256_loadu_ps(values + 8 * half);
}

inline simde__m256i _mm512_extracti32x8_epi32(simde__m512i v, int half) {
  int32_t values[16];
  memcpy(values, &v, sizeof(values));
  return simde_mm256_loadu_si256(reinterpret_cast<const simde__m256i*>(values + 8 * half));
}

inline simde__m512i _mm512_madd_epi16(simde__m512i a, simde__m512i b) {
  int16_t x[32], y[32];
  int32_t sums[16];
  memcpy(x, &a, sizeof(x));
  memcpy(y, &b, sizeof(y));
  for (int i = 0; i < 16; ++i) sums[i] = x[2 * i] * y[2 * i] + x[2 * i + 1] * y[2 * i + 1];
  simde__m512i out;
  memcpy(&out, sums, sizeof(out));
  return out;
}

#undef _mm512_cvtepu16_epi32

inline simde__m512i _mm512_cvtepu16_epi32(simde__m256i v) {
  uint16_t from[16];
  int32_t to[16];
  memcpy(from, &v, sizeof(from));
  for (int i = 0; i < 16; ++i) to[i] = from[i];
  simde__m512i out;
  memcpy(&out, to, sizeof(out));
  return out;
}

#undef _mm512_cvtepi32_ps

inline simde__m512 _mm512_cvtepi32_ps(simde__m512i v) {
  int32_t from[16];
  float to[16];
  memcpy(from, &v, sizeof(from));
  for (int i = 0; i < 16; ++i) to[i] = static_cast<float>(from[i]);
  return simde_mm512_loadu_ps(to);
}

// The operation section: four products of an unsigned and a signed byte for each sum, which wraps.
template <typename Register>
inline Register dpbusd(Register sums, Register unsigned_bytes, Register signed_bytes) {
  constexpr int kSums = sizeof(Register) / 4;
  uint32_t out[kSums];
  uint8_t x[4 * kSums];
  int8_t y[4 * kSums];
  memcpy(out, &sums, sizeof(out));
  memcpy(x, &unsigned_bytes, sizeof(x));
  memcpy(y, &signed_bytes, sizeof(y));
  for (int i = 0; i < 4 * kSums; ++i) out[i / 4] += static_cast<uint32_t>(static_cast<int32_t>(x[i]) * y[i]);
  memcpy(&sums, out, sizeof(out));
  return sums;
}

#undef _mm512_dpbusd_epi32

inline simde__m512i _mm512_dpbusd_epi32(simde__m512i sums, simde__m512i x, simde__m512i y) { return dpbusd(sums, x, y); }
inline simde__m256i _mm256_dpbusd_avx_epi32(simde__m256i sums, simde__m256i x, simde__m256i y) { return dpbusd(sums, x, y); }
