// The process has asked for the tile registers (simd/cpu.cpp); the tile configuration lives only inside each call.
#include "kernels/linear_bf16/contract.h"

#if defined(__x86_64__)
#include "kernels/linear_amx.h"

namespace nf::kernels {
namespace {

const char* target() { return "amx"; }

struct Product {
  template <int kSums>
  static inline void multiply() {
    if constexpr (kSums == 0) _tile_dpbf16ps(0, 4, 6);
    if constexpr (kSums == 1) _tile_dpbf16ps(1, 4, 7);
    if constexpr (kSums == 2) _tile_dpbf16ps(2, 5, 6);
    if constexpr (kSums == 3) _tile_dpbf16ps(3, 5, 7);
  }
};

template <LinearOut kOut>
void run_as(const LinearBf16Job& job) {
  const Gelu gelu;
  const auto sixteen = [&](const int32_t* sums, size_t column) {
    return _mm512_add_ps(_mm512_castsi512_ps(_mm512_load_si512(sums)), _mm512_loadu_ps(job.bias + column));
  };
  const auto finish = [&](const Pending& block, size_t row) {
    const int32_t* const sums = block.sums + row * kBlockColumns;
    const size_t place = (block.row + row) * job.out_stride + block.column;
    put<kOut>(sixteen(sums, block.column), gelu, job.out, place);
    if (block.two) put<kOut>(sixteen(sums + kPanelColumns, block.column + kPanelColumns), gelu, job.out, place + kPanelColumns);
  };
  Blocks<Product, decltype(finish)>(reinterpret_cast<const uint8_t*>(job.input), job.input_stride * sizeof(uint16_t), reinterpret_cast<const uint8_t*>(job.weights),
                                    job.depth * sizeof(uint16_t) * kPanelColumns, job.panels, finish)
      .run(job.rows);
}

void run(const LinearBf16Job* job, LinearOut out) {
  switch (out) {
    case LinearOut::f32: return run_as<LinearOut::f32>(*job);
    case LinearOut::bf16: return run_as<LinearOut::bf16>(*job);
    case LinearOut::gelu_f32: return run_as<LinearOut::gelu_f32>(*job);
    case LinearOut::gelu_bf16: return run_as<LinearOut::gelu_bf16>(*job);
  }
}

}  // namespace

const LinearBf16 linear_bf16_amx = {run, target};

}  // namespace nf::kernels

#endif
