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

template <LinearOut kOut>
void run_as(const LinearI8Job& job) {
  const Gelu gelu;
  const auto sixteen = [&](const int32_t* sums, __m512 scale, __m512 low, size_t column) {
    const __m512 rest = _mm512_fmadd_ps(low, _mm512_loadu_ps(job.column_sum + column), _mm512_loadu_ps(job.bias + column));
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums)), _mm512_mul_ps(scale, _mm512_loadu_ps(job.column_scale + column)), rest);
  };
  const auto finish = [&](const Pending& block, size_t row) {
    const int32_t* const sums = block.sums + row * kBlockColumns;
    const __m512 scale = _mm512_set1_ps(job.input_scale[block.row + row]), low = _mm512_set1_ps(job.input_low[block.row + row]);
    const size_t place = (block.row + row) * job.out_stride + block.column;
    put<kOut>(sixteen(sums, scale, low, block.column), gelu, job.out, place);
    if (block.two) put<kOut>(sixteen(sums + kPanelColumns, scale, low, block.column + kPanelColumns), gelu, job.out, place + kPanelColumns);
  };
  Blocks<Product, decltype(finish)>(job.input, job.input_stride, reinterpret_cast<const uint8_t*>(job.weights), job.depth * kPanelColumns, job.panels, finish).run(job.rows);
}

void run(const LinearI8Job* job, LinearOut out) {
  switch (out) {
    case LinearOut::f32: return run_as<LinearOut::f32>(*job);
    case LinearOut::bf16: return run_as<LinearOut::bf16>(*job);
    case LinearOut::gelu_f32: return run_as<LinearOut::gelu_f32>(*job);
    case LinearOut::gelu_bf16: return run_as<LinearOut::gelu_bf16>(*job);
  }
}

}  // namespace

const LinearI8 linear_i8_amx = {run, target};

}  // namespace nf::kernels

#endif
