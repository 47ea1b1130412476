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

// The y of a block's rows, two panels at a time.
struct Values {
  __m512 bias[2];

  Values(const LinearBf16Job& job, size_t column) {
    // Behind the last panel of an odd number stands nothing; its second half is computed from the first, and dropped.
    bias[0] = _mm512_loadu_ps(job.bias + column);
    bias[1] = column + kPanelColumns < job.panels * kPanelColumns ? _mm512_loadu_ps(job.bias + column + kPanelColumns) : bias[0];
  }

  inline void next(const int32_t* sums, __m512* a, __m512* b) const {
    *a = _mm512_add_ps(_mm512_castsi512_ps(_mm512_load_si512(sums)), bias[0]);
    *b = _mm512_add_ps(_mm512_castsi512_ps(_mm512_load_si512(sums + kPanelColumns)), bias[1]);
  }
};

template <LinearOut kOut>
void run_as(const LinearBf16Job& job) {
  all_blocks<Product, kOut>(reinterpret_cast<const uint8_t*>(job.input), job.input_stride * sizeof(uint16_t), job.rows, reinterpret_cast<const uint8_t*>(job.weights),
                            job.depth * sizeof(uint16_t) * kPanelColumns, job.panels, static_cast<uint8_t*>(job.out), job.out_stride,
                            [&](size_t, size_t column) { return Values(job, column); });
}

void run(const LinearBf16Job* job, LinearOut out) {
  with_out(out, [&](auto kind) { run_as<decltype(kind)::value>(*job); });
}

}  // namespace

const LinearBf16 linear_bf16_amx = {run, target};

}  // namespace nf::kernels

#endif
