#include "kernels/linear_f32/contract.h"

#if defined(__x86_64__)
#include "kernels/linear_rows_avx512.h"

namespace nf::kernels {
namespace {

const char* target() { return "avx512"; }

struct Product {
  using Input = float;
  using Weight = float;
  static constexpr size_t kStep = 1;
  static inline __m512 row(const float* input) { return _mm512_set1_ps(*input); }
  static inline __m512i add(__m512i sums, __m512 row, __m512i panel) {
    return _mm512_castps_si512(_mm512_fmadd_ps(row, _mm512_castsi512_ps(panel), _mm512_castsi512_ps(sums)));
  }
};

// x * Phi(x) to float32's precision: Abramowitz and Stegun 7.1.26 for 1 - erf(|x| / sqrt 2), off by at most 1.5e-7; e^(-x^2 / 2) by the series
// of 2^r to r^7.
struct FineGelu {
  inline __m512 operator()(__m512 x) const {
    const __m512 z = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.70710678f)), one = _mm512_set1_ps(1.0f);
    const __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(_mm512_set1_ps(0.3275911f), z, one));
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(1.061405429f), t, _mm512_set1_ps(-1.453152027f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(1.421413741f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-0.284496736f));
    p = _mm512_mul_ps(_mm512_fmadd_ps(p, t, _mm512_set1_ps(0.254829592f)), t);
    const __m512 exponent = _mm512_max_ps(_mm512_mul_ps(_mm512_mul_ps(z, z), _mm512_set1_ps(-1.44269504f)), _mm512_set1_ps(-120.0f));
    const __m512 n = _mm512_roundscale_ps(exponent, _MM_FROUND_TO_NEAREST_INT), r = _mm512_sub_ps(exponent, n);
    __m512 e = _mm512_set1_ps(1.5252734e-5f);
    constexpr float kSeries[] = {1.5403530e-4f, 1.3333558e-3f, 9.6181291e-3f, 5.5504109e-2f, 2.4022651e-1f, 6.9314718e-1f, 1.0f};
    for (const float coefficient : kSeries) {
      e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(coefficient));
    }
    const __m512 tail = _mm512_mul_ps(_mm512_mul_ps(_mm512_set1_ps(0.5f), p), _mm512_scalef_ps(e, n));
    const __mmask16 negative = _mm512_movepi32_mask(_mm512_castps_si512(x));
    return _mm512_mul_ps(x, _mm512_mask_mov_ps(_mm512_sub_ps(one, tail), negative, tail));
  }
};

template <LinearOut kOut>
void run_as(const LinearF32Job& job) {
  const FineGelu gelu;
  all_tiles<Product>(job.input, job.input_stride, job.rows, job.weights, job.depth, job.panels, [&](__m512i sums, size_t row, size_t column) {
    put<kOut>(_mm512_add_ps(_mm512_castsi512_ps(sums), _mm512_loadu_ps(job.bias + column)), gelu, job.out, row * job.out_stride + column);
  });
}

void run(const LinearF32Job* job, LinearOut out) { out == LinearOut::gelu_f32 ? run_as<LinearOut::gelu_f32>(*job) : run_as<LinearOut::f32>(*job); }

}  // namespace

const LinearF32 linear_f32_avx512 = {run, target};

}  // namespace nf::kernels

#endif
