// What becomes of a sum, in AVX-512 registers. Included by files compiled for AVX-512 or more alone; everything has internal linkage.
#pragma once

#include <immintrin.h>

#include "kernels/linear.h"

namespace nf::kernels {
namespace {

// The normal distribution function on pieces around the multiples i of kPiece, -16 <= i <= 15, by cubics in the distance (Chebyshev nodes):
// row k holds the coefficients of degree k, those of i >= 0 first. x Phi(x) is off by at most 6e-6 for |x| <= 8, and by 7e-7 |x| beyond 5.
constexpr float kPiece = 0.3125f;
alignas(64) constexpr float kPhi[4][32] = {
    {0.5f, 0.622668624f, 0.734012842f, 0.825747728f, 0.894349217f, 0.940914571f, 0.969603837f, 0.98564744f,
     0.993790805f, 0.997542441f, 0.999111176f, 0.999706566f, 0.999911606f, 0.999975741f, 0.99999392f, 0.999998629f,
     2.86136526e-07f, 1.38092628e-06f, 6.06546337e-06f, 2.42571277e-05f, 8.83716348e-05f, 0.000293453049f, 0.000888826617f, 0.00245757354f,
     0.006209224f, 0.0143525815f, 0.0303961579f, 0.0590854436f, 0.10565079f, 0.174252301f, 0.265987188f, 0.377331346f},
    {0.398941547f, 0.379930049f, 0.328160793f, 0.257074147f, 0.182649523f, 0.117697425f, 0.0687865242f, 0.0364608988f,
     0.0175282508f, 0.00764252013f, 0.00302218343f, 0.00108390371f, 0.000352570147f, 0.000104012281f, 2.7829612e-05f, 6.753241e-06f,
     1.4862743e-06f, 6.753241e-06f, 2.7829612e-05f, 0.000104012281f, 0.000352570147f, 0.00108390371f, 0.00302218343f, 0.00764252013f,
     0.0175282508f, 0.0364608988f, 0.0687865242f, 0.117697425f, 0.182649523f, 0.257074147f, 0.328160793f, 0.379930049f},
    {-1.39237372e-15f, -0.059014827f, -0.102007553f, -0.119984597f, -0.113822117f, -0.0918458328f, -0.064554058f, -0.0400232971f,
     -0.0220549814f, -0.0108547537f, -0.00478736544f, -0.00189655821f, -0.000676065567f, -0.000217140827f, -6.29031638e-05f, -1.64489047e-05f,
     3.88526951e-06f, 1.64489047e-05f, 6.29031638e-05f, 0.000217140827f, 0.000676065567f, 0.00189655821f, 0.00478736544f, 0.0108547537f,
     0.0220549814f, 0.0400232971f, 0.064554058f, 0.0918458328f, 0.113822117f, 0.119984597f, 0.102007553f, 0.059014827f},
    {-0.0662475005f, -0.056951087f, -0.0332748368f, -0.00526648154f, 0.0169776045f, 0.0281389095f, 0.0287598409f, 0.0229806639f,
     0.0153533965f, 0.00883001089f, 0.00443976279f, 0.00196990394f, 0.000775994442f, 0.00027254023f, 8.56025799e-05f, 2.41002654e-05f,
     6.09259632e-06f, 2.41002654e-05f, 8.56025799e-05f, 0.00027254023f, 0.000775994442f, 0.00196990394f, 0.00443976279f, 0.00883001089f,
     0.0153533965f, 0.0229806639f, 0.0287598409f, 0.0281389095f, 0.0169776045f, -0.00526648154f, -0.0332748368f, -0.056951087f},
};

struct Gelu {
  __m512 coefficients[4][2];

  Gelu() {
    for (int k = 0; k < 4; ++k) {
      coefficients[k][0] = _mm512_load_ps(kPhi[k]);
      coefficients[k][1] = _mm512_load_ps(kPhi[k] + 16);
    }
  }

  inline __m512 operator()(__m512 x) const {
    const __m512 shift = _mm512_set1_ps(12582912.0f);  // 1.5 * 2^23: adding it leaves the nearest whole number in the low bits
    const __m512 floor = _mm512_max_ps(x, _mm512_set1_ps(-16.49f * kPiece));
    const __m512 inside = _mm512_min_ps(floor, _mm512_set1_ps(15.49f * kPiece));
    const __m512 shifted = _mm512_fmadd_ps(inside, _mm512_set1_ps(1.0f / kPiece), shift);
    const __m512 d = _mm512_fnmadd_ps(_mm512_sub_ps(shifted, shift), _mm512_set1_ps(kPiece), inside);
    const __m512i piece = _mm512_castps_si512(shifted);  // the permutation reads the five lowest bits
    __m512 p = _mm512_permutex2var_ps(coefficients[3][0], piece, coefficients[3][1]);
    p = _mm512_fmadd_ps(p, d, _mm512_permutex2var_ps(coefficients[2][0], piece, coefficients[2][1]));
    p = _mm512_fmadd_ps(p, d, _mm512_permutex2var_ps(coefficients[1][0], piece, coefficients[1][1]));
    p = _mm512_fmadd_ps(p, d, _mm512_permutex2var_ps(coefficients[0][0], piece, coefficients[0][1]));
    return _mm512_mul_ps(floor, p);
  }
};

// To bfloat16, nearest, ties to even.
inline __m256i halves_of(__m512 value) {
#if defined(__AVX512BF16__)
  return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value));
#else
  const __m512i bits = _mm512_castps_si512(value);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
#endif
}

constexpr bool is_gelu(LinearOut out) { return out == LinearOut::gelu_f32 || out == LinearOut::gelu_bf16; }
constexpr bool is_wide(LinearOut out) { return out == LinearOut::f32 || out == LinearOut::gelu_f32; }

// One row's y in sixteen columns to its place; `values` counts in values of the output's type.
template <LinearOut kOut, typename GeluOf>
inline void put(__m512 y, const GeluOf& gelu, void* out, size_t values) {
  if constexpr (is_gelu(kOut)) y = gelu(y);
  if constexpr (is_wide(kOut)) {
    _mm512_storeu_ps(static_cast<float*>(out) + values, y);
  } else if constexpr (kOut == LinearOut::f16) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(static_cast<uint16_t*>(out) + values), _mm512_cvtps_ph(y, _MM_FROUND_TO_NEAREST_INT));
  } else {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(static_cast<uint16_t*>(out) + values), halves_of(y));
  }
}

}  // namespace
}  // namespace nf::kernels
