// The process has asked for the tile registers (simd/cpu.cpp); the tile configuration lives only inside each call.
#include "kernels/linear_i8/contract.h"

#if defined(__x86_64__)
#include "kernels/linear_amx.h"

namespace nf::kernels {
namespace {

const char* target() { return "amx"; }

struct Product {
  template <int kSums>
  static inline void multiply() {
    if constexpr (kSums == 0) _tile_dpbusd(0, 4, 6);
    if constexpr (kSums == 1) _tile_dpbusd(1, 4, 7);
    if constexpr (kSums == 2) _tile_dpbusd(2, 5, 6);
    if constexpr (kSums == 3) _tile_dpbusd(3, 5, 7);
  }
};

// The y of a block's rows, two panels at a time.
struct Values {
  __m512 scale[2], sum[2], bias[2];
  const float *input_scale, *input_low;

  Values(const LinearI8Job& job, size_t row, size_t column) : input_scale(job.input_scale + row), input_low(job.input_low + row) {
    // Behind the last panel of an odd number stands nothing; its second half is computed from the first, and dropped.
    const size_t second = column + kPanelColumns < job.panels * kPanelColumns ? column + kPanelColumns : column;
    for (size_t i = 0; i < 2; ++i) {
      const size_t at = i == 0 ? column : second;
      scale[i] = _mm512_loadu_ps(job.column_scale + at);
      sum[i] = _mm512_loadu_ps(job.column_sum + at);
      bias[i] = _mm512_loadu_ps(job.bias + at);
    }
  }

  inline void next(const int32_t* sums, __m512* a, __m512* b) {
    const __m512 of_row = _mm512_set1_ps(*input_scale++), low = _mm512_set1_ps(*input_low++);
    *a = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums)), _mm512_mul_ps(of_row, scale[0]), _mm512_fmadd_ps(low, sum[0], bias[0]));
    *b = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums + kPanelColumns)), _mm512_mul_ps(of_row, scale[1]), _mm512_fmadd_ps(low, sum[1], bias[1]));
  }
};

template <LinearOut kOut>
void run_as(const LinearI8Job& job) {
  all_blocks<Product, kOut>(job.input, job.input_stride, job.rows, reinterpret_cast<const uint8_t*>(job.weights), job.depth * kPanelColumns, job.panels,
                            static_cast<uint8_t*>(job.out), job.out_stride, [&](size_t row, size_t column) { return Values(job, row, column); });
}

void run(const LinearI8Job* job, LinearOut out) {
  with_out(out, [&](auto kind) { run_as<decltype(kind)::value>(*job); });
}

void run_f16(const LinearI8Job* job) { run_as<LinearOut::f16>(*job); }

}  // namespace

const LinearI8 linear_i8_amx = {run, run_f16, target};

}  // namespace nf::kernels

#endif
