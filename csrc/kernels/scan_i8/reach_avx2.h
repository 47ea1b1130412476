// The test of eight products against a query's cut.
#pragma once

#include <immintrin.h>

#include "kernels/scan_i8/contract.h"

namespace nf::kernels {
namespace {

inline uint32_t reached_8(__m256 values, float cut, const ScanI8Query& query, const float* scale, const float* error, const float* add) {
  const __m256 scaled = _mm256_mul_ps(values, _mm256_loadu_ps(scale));
  const __m256 beside = _mm256_fmadd_ps(_mm256_set1_ps(query.slack), _mm256_loadu_ps(error), _mm256_loadu_ps(add));
  const __m256 upper = _mm256_fmadd_ps(_mm256_set1_ps(query.factor), scaled, beside);
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(upper, _mm256_set1_ps(cut), _CMP_GE_OQ)));
}

inline uint32_t reached_8(__m256i products, const ScanI8Query& query, const float* scale, const float* error, const float* add) {
  return reached_8(_mm256_cvtepi32_ps(products), query.cut, query, scale, error, add);
}

inline uint32_t reached_8(__m256i products, __m256i low, const ScanI8Query& query, const float* scale, const float* error, const float* add) {
  const __m256 values = _mm256_fmadd_ps(_mm256_cvtepi32_ps(low), _mm256_set1_ps(1.0f / kLowSteps), _mm256_cvtepi32_ps(products));
  return reached_8(values, query.fine_cut, query, scale, error, add);
}

}  // namespace
}  // namespace nf::kernels
