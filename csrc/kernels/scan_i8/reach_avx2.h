// The test of eight products against a query's cut.
#pragma once

#include <immintrin.h>

#include "kernels/scan_i8/contract.h"

namespace nf::kernels {
namespace {

inline uint32_t reached_8(__m256i products, const ScanI8Query& query, const float* scale, const float* error, const float* add) {
  const __m256 scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(products), _mm256_loadu_ps(scale));
  const __m256 beside = _mm256_fmadd_ps(_mm256_set1_ps(query.slack), _mm256_loadu_ps(error), _mm256_loadu_ps(add));
  const __m256 upper = _mm256_fmadd_ps(_mm256_set1_ps(query.factor), scaled, beside);
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(upper, _mm256_set1_ps(query.cut), _CMP_GE_OQ)));
}

}  // namespace
}  // namespace nf::kernels
