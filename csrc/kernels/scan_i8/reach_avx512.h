// The test of sixteen products against a query's cut.
#pragma once

#include <immintrin.h>

#include "kernels/scan_i8/contract.h"

namespace nf::kernels {
namespace {

inline uint32_t reached_16(__m512 values, float cut, const ScanI8Query& query, const float* scale, const float* error, const float* add) {
  const __m512 scaled = _mm512_mul_ps(values, _mm512_loadu_ps(scale));
  const __m512 beside = _mm512_fmadd_ps(_mm512_set1_ps(query.slack), _mm512_loadu_ps(error), _mm512_loadu_ps(add));
  const __m512 upper = _mm512_fmadd_ps(_mm512_set1_ps(query.factor), scaled, beside);
  return static_cast<uint32_t>(_mm512_cmp_ps_mask(upper, _mm512_set1_ps(cut), _CMP_GE_OQ));
}

inline uint32_t reached_16(__m512i products, const ScanI8Query& query, const float* scale, const float* error, const float* add) {
  return reached_16(_mm512_cvtepi32_ps(products), query.cut, query, scale, error, add);
}

inline uint32_t reached_16(__m512i products, __m512i low, const ScanI8Query& query, const float* scale, const float* error, const float* add) {
  const __m512 values = _mm512_fmadd_ps(_mm512_cvtepi32_ps(low), _mm512_set1_ps(1.0f / kLowSteps), _mm512_cvtepi32_ps(products));
  return reached_16(values, query.fine_cut, query, scale, error, add);
}

}  // namespace
}  // namespace nf::kernels
