// encoder_rows on targets of 8 or 4 floats a register.
#pragma once

#include "kernels/encoder_loops.h"
#include "kernels/encoder_rows/contract.h"

namespace nf::kernels {

template <typename L>
struct EncoderRowsLoops {
  using F = typename L::F;
  static constexpr size_t kCount = L::kCount;
  static constexpr float kHuge = 3e38f;

  static inline float root(float value) {
#if defined(__AVX2__)
    return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(value)));
#else
    return vget_lane_f32(vsqrt_f32(vdup_n_f32(value)), 0);
#endif
  }

  // Calls each(j, left) for the first column of every register; `left` columns of it count.
  template <typename Each>
  static inline void over(size_t width, const Each& each) {
    size_t j = 0;
    for (; j + kCount <= width; j += kCount) each(j, kCount);
    if (j < width) each(j, width - j);
  }

  static inline F kept(F v, size_t left) { return left == kCount ? v : L::first(v, left); }

  // `value(j)` for each register up to `columns` to codes that count from `low`; returns their scale.
  template <typename Read>
  static inline float put_codes(const Read& value, float low, float high, size_t columns, uint8_t* codes) {
    const float span = high - low;
    const bool flat = !(span > kLeastSpan);
    const F inverse = L::set(flat ? 0.0f : 255.0f / span), from = L::set(low);
    for (size_t j = 0; j < columns; j += kCount) L::codes(L::mul(L::sub(value(j), from), inverse), codes + j);
    return flat ? 0.0f : span / 255.0f;
  }

  static inline void norm_row(const NormJob& job, size_t row) {
    float* const x = job.x + row * job.x_stride;
    const float* const add = job.add + row * job.add_stride;
    F sums[2] = {L::zero(), L::zero()};
    over(job.width, [&](size_t j, size_t left) {
      const F both = kept(L::add(L::load(x + j), L::load(add + j)), left);
      L::store(x + j, both);
      F& sum = sums[j / kCount % 2];
      sum = L::add(sum, both);
    });
    const float count = static_cast<float>(job.width);
    const F mean = L::set(L::sum(L::add(sums[0], sums[1])) / count);
    F squares[2] = {L::zero(), L::zero()};
    over(job.width, [&](size_t j, size_t left) {
      const F away = kept(L::sub(L::load(x + j), mean), left);
      F& square = squares[j / kCount % 2];
      square = L::fma(away, away, square);
    });
    const F inverse = L::set(1.0f / root(L::sum(L::add(squares[0], squares[1])) / count + job.eps));
    const RowCodes& out = job.out;
    const auto value = [&](size_t j) { return out.factor != nullptr ? L::mul(L::load(x + j), L::load(out.factor + j)) : L::load(x + j); };
    F lows = L::set(kHuge), highs = L::set(-kHuge);
    over(job.width, [&](size_t j, size_t left) {
      const F away = L::mul(L::sub(L::load(x + j), mean), inverse);
      L::store(x + j, kept(L::fma(away, L::load(job.gamma + j), L::load(job.beta + j)), left));
      const F coded = value(j);
      lows = L::min(lows, coded);
      highs = L::max(highs, coded);
    });
    for (size_t j = (job.width + kCount - 1) / kCount * kCount; j < job.padded; j += kCount) L::store(x + j, L::zero());
    if (out.codes != nullptr) {
      out.low[row] = L::least(lows);
      out.scale[row] = put_codes(value, out.low[row], L::most(highs), job.padded, out.codes + row * out.stride);
    }
    if (out.halves != nullptr) {
      for (size_t j = 0; j < job.padded; j += kCount) L::narrow(L::load(x + j), out.halves + row * out.stride + j);
    }
  }

  static void norm(const NormJob* job) {
    for (size_t row = 0; row < job->rows; ++row) norm_row(*job, row);
  }

  // Rows of bfloat16; those behind GELU have one low in common.
  template <bool kFromGeluLow>
  static void quantize(const QuantizeJob* job) {
    for (size_t row = 0; row < job->rows; ++row) {
      const uint16_t* const halves = job->input + row * job->input_stride;
      F lows = kFromGeluLow ? L::set(kGeluLow) : L::set(kHuge), highs = kFromGeluLow ? L::zero() : L::set(-kHuge);
      for (size_t j = 0; j < job->padded; j += kCount) {
        const F value = L::widen(halves + j);
        if (!kFromGeluLow) lows = L::min(lows, value);
        highs = L::max(highs, value);
      }
      job->low[row] = L::least(lows);
      job->scale[row] = put_codes([&](size_t j) { return L::widen(halves + j); }, job->low[row], L::most(highs), job->padded, job->codes + row * job->codes_stride);
    }
  }
};

}  // namespace nf::kernels
