#include "kernels/linear_i8/contract.h"

#if defined(__x86_64__)
#include "kernels/linear_rows_avx512.h"

namespace nf::kernels {
namespace {

const char* target() { return "avx512vnni"; }

struct Product {
  using Input = uint8_t;
  using Weight = int8_t;
  static constexpr size_t kStep = 4;
  static inline __m512i row(const uint8_t* input) {
    int four;
    __builtin_memcpy(&four, input, sizeof(four));
    return _mm512_set1_epi32(four);
  }
  static inline __m512i add(__m512i sums, __m512i row, __m512i panel) { return _mm512_dpbusd_epi32(sums, row, panel); }
};

template <LinearOut kOut>
void run_as(const LinearI8Job& job) {
  const Gelu gelu;
  all_tiles<Product>(job.input, job.input_stride, job.rows, job.weights, job.depth, job.panels, [&](__m512i sums, size_t row, size_t column) {
    const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(job.input_scale[row]), _mm512_loadu_ps(job.column_scale + column));
    const __m512 rest = _mm512_fmadd_ps(_mm512_set1_ps(job.input_low[row]), _mm512_loadu_ps(job.column_sum + column), _mm512_loadu_ps(job.bias + column));
    put<kOut>(_mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), scale, rest), gelu, job.out, row * job.out_stride + column);
  });
}

void run(const LinearI8Job* job, LinearOut out) {
  with_out(out, [&](auto kind) { run_as<decltype(kind)::value>(*job); });
}

}  // namespace

const LinearI8 linear_i8_avx512vnni = {run, nullptr, target};

}  // namespace nf::kernels

#endif
