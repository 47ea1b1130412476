// linear_bf16 on targets of 8 or 4 floats a register: both sides are widened, which loses nothing, and multiplied as float32.
#pragma once

#include "kernels/encoder_loops.h"
#include "kernels/linear_bf16/contract.h"

namespace nf::kernels {

template <typename L>
struct LinearBf16Loops {
  using Loops = EncoderLoops<L>;
  using F = typename L::F;

  struct Unit {
    const LinearBf16Job& job;
    size_t panel;
    LinearOut kind;

    template <int R>
    inline void run(size_t row) const {
      const uint16_t* const weights = job.weights + panel * job.depth * kPanelColumns;
      const uint16_t* const input = job.input + row * job.input_stride;
      const size_t stride = job.input_stride, depth = job.depth;
      F sums[R][Loops::kVectors];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < Loops::kVectors; ++v) sums[r][v] = L::zero();
      }
      for (size_t k = 0; k < depth; k += 2) {
        typename L::Pairs columns[Loops::kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < Loops::kVectors; ++v) columns[v] = L::pairs(weights + k * kPanelColumns + static_cast<size_t>(v) * 2 * L::kCount);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const typename L::Pairs pair = L::spread_pair(input + static_cast<size_t>(r) * stride + k);
          const F first = L::low(pair), second = L::high(pair);
#pragma GCC unroll 4
          for (int v = 0; v < Loops::kVectors; ++v) {
            sums[r][v] = L::fma(second, L::high(columns[v]), L::fma(first, L::low(columns[v]), sums[r][v]));
          }
        }
      }
      for (int v = 0; v < Loops::kVectors; ++v) {
        const size_t column = panel * kPanelColumns + static_cast<size_t>(v) * L::kCount;
        const F bias = L::load(job.bias + column);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) Loops::put(L::add(sums[r][v], bias), kind, job.out, (row + static_cast<size_t>(r)) * job.out_stride + column);
      }
    }
  };

  static void run(const LinearBf16Job* job, LinearOut kind) {
    for (size_t panel = 0; panel < job->panels; ++panel) by_rows<kRows>(job->rows, Unit{*job, panel, kind});
  }

  // Eight sums, four widened registers of weights and two of inputs of sixteen (AVX2).
  static constexpr int kRows = Loops::kVectors == 2 ? 4 : 5;
};

}  // namespace nf::kernels
