// linear_f32 on targets of 8 or 4 floats a register.
#pragma once

#include "kernels/encoder_loops.h"
#include "kernels/linear_f32/contract.h"

namespace nf::kernels {

template <typename L>
struct LinearF32Loops {
  using Loops = EncoderLoops<L>;

  struct Unit {
    const LinearF32Job& job;
    size_t panel;
    LinearOut kind;

    template <int R>
    inline void run(size_t row) const {
      typename L::F sums[R][Loops::kVectors];
      Loops::template tile<R>(job.input + row * job.input_stride, job.input_stride, job.weights + panel * job.depth * kPanelColumns, job.depth, sums);
      for (int v = 0; v < Loops::kVectors; ++v) {
        const size_t column = panel * kPanelColumns + static_cast<size_t>(v) * L::kCount;
        const typename L::F bias = L::load(job.bias + column);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) Loops::put(L::add(sums[r][v], bias), kind, job.out, (row + static_cast<size_t>(r)) * job.out_stride + column);
      }
    }
  };

  // Panels outside: one of them stays in the first-level cache while the rows pass.
  static void run(const LinearF32Job* job, LinearOut kind) {
    for (size_t panel = 0; panel < job->panels; ++panel) by_rows<Loops::kRows>(job->rows, Unit{*job, panel, kind});
  }
};

}  // namespace nf::kernels
