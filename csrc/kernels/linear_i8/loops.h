// linear_i8 on targets whose registers hold a part of a panel's sixteen columns.
//
// `P` is the target's products of bytes, beside `L`, its float32 arithmetic (kernels/encoder_loops.h):
//   I, kParts, kRows                 a register of sums; how many of them a panel takes; rows at a time
//   Start, start(weights, depth)     what is the same for all rows of a panel, and begin(start, part): the first value of a sum
//   weights(p), spread(q)            64 / kParts bytes of weights; four codes of a row, repeated
//   kWeightsFirst                    a panel's weights stay in registers while the rows' codes pass, or the other way round
//   plus(sum, weights, four)         sum + products
//   finish(sums, v)                  sums of the v-th L::kCount columns, as float32
#pragma once

#include "kernels/encoder_loops.h"
#include "kernels/linear_i8/contract.h"

namespace nf::kernels {

template <typename L, typename P>
struct LinearI8Loops {
  using Loops = EncoderLoops<L>;
  using F = typename L::F;
  static constexpr size_t kGroupBytes = 4 * kPanelColumns, kPartBytes = kGroupBytes / P::kParts;

  // Keeps the sums in order: gcc 12 otherwise makes several products before it adds any, and runs out of registers.
  static inline void add(typename P::I& sum, typename P::I part, typename P::I four) {
    sum = P::plus(sum, part, four);
#if defined(__AVX2__)
    __asm__ volatile("" : "+x"(sum));
#elif defined(__ARM_FEATURE_DOTPROD)
    __asm__ volatile("" : "+w"(sum));
#endif
  }

  struct Unit {
    const LinearI8Job& job;
    size_t panel;
    LinearOut kind;
    const typename P::Start& start;

    template <int R>
    inline void run(size_t row) const {
      const int8_t* const weights = job.weights + panel * job.depth * kPanelColumns;
      const uint8_t* const input = job.input + row * job.input_stride;
      const size_t stride = job.input_stride, depth = job.depth;
      typename P::I sums[R][P::kParts];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int p = 0; p < P::kParts; ++p) sums[r][p] = P::begin(start, p);
      }
      for (size_t k = 0; k < depth; k += 4) {
        const int8_t* const group = weights + k * kPanelColumns;
        if constexpr (P::kWeightsFirst) {
          typename P::I part[P::kParts];
#pragma GCC unroll 4
          for (int p = 0; p < P::kParts; ++p) part[p] = P::weights(group + static_cast<size_t>(p) * kPartBytes);
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) {
            const typename P::I four = P::spread(input + static_cast<size_t>(r) * stride + k);
#pragma GCC unroll 4
            for (int p = 0; p < P::kParts; ++p) add(sums[r][p], part[p], four);
          }
        } else {
          typename P::I four[R];
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) four[r] = P::spread(input + static_cast<size_t>(r) * stride + k);
#pragma GCC unroll 4
          for (int p = 0; p < P::kParts; ++p) {
            const typename P::I part = P::weights(group + static_cast<size_t>(p) * kPartBytes);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) add(sums[r][p], part, four[r]);
          }
        }
      }
      // Unrolled, for sums that are indexed by a variable live in memory during the loop above too.
#pragma GCC unroll 4
      for (int v = 0; v < Loops::kVectors; ++v) {
        const size_t column = panel * kPanelColumns + static_cast<size_t>(v) * L::kCount;
        const F scale = L::load(job.column_scale + column), sum = L::load(job.column_sum + column), bias = L::load(job.bias + column);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const size_t token = row + static_cast<size_t>(r);
          const F beside = L::fma(L::set(job.input_low[token]), sum, bias);
          const F y = L::fma(P::finish(sums[r], v), L::mul(L::set(job.input_scale[token]), scale), beside);
          Loops::put(y, kind, job.out, token * job.out_stride + column);
        }
      }
    }
  };

  static void run(const LinearI8Job* job, LinearOut kind) {
    for (size_t panel = 0; panel < job->panels; ++panel) {
      const typename P::Start start = P::start(job->weights + panel * job->depth * kPanelColumns, job->depth);
      by_rows<P::kRows>(job->rows, Unit{*job, panel, kind, start});
    }
  }
};

}  // namespace nf::kernels
