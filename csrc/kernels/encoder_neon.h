// The encoder's float32 arithmetic in NEON registers, for encoder_loops.h.
#pragma once

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>

namespace nf::kernels {
namespace {

struct EncoderNeon {
  using F = float32x4_t;
  using Pairs = uint32x4_t;
  static constexpr size_t kCount = 4;

  static inline F zero() { return vdupq_n_f32(0.0f); }
  static inline F set(float value) { return vdupq_n_f32(value); }
  static inline F load(const float* p) { return vld1q_f32(p); }
  static inline void store(float* p, F v) { vst1q_f32(p, v); }
  static inline F add(F a, F b) { return vaddq_f32(a, b); }
  static inline F sub(F a, F b) { return vsubq_f32(a, b); }
  static inline F mul(F a, F b) { return vmulq_f32(a, b); }
  static inline F div(F a, F b) { return vdivq_f32(a, b); }
  static inline F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
  static inline F min(F a, F b) { return vminq_f32(a, b); }
  static inline F max(F a, F b) { return vmaxq_f32(a, b); }
  static inline F magnitude(F a) { return vabsq_f32(a); }
  static inline F nearest(F a) { return vrndnq_f32(a); }
  static inline F power(F whole) { return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(whole), vdupq_n_s32(127)), 23)); }
  static inline F where_below(F x, F limit, F a, F b) { return vbslq_f32(vcltq_f32(x, limit), a, b); }
  static inline F first(F v, size_t left) {
    static const uint32_t kOnesThenZeros[8] = {0xFFFFFFFFu, 0xFFFFFFFFu, 0xFFFFFFFFu, 0xFFFFFFFFu, 0, 0, 0, 0};
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(v), vld1q_u32(kOnesThenZeros + kCount - left)));
  }

  static inline F widen(const uint16_t* p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
  static inline void narrow(F v, uint16_t* p) {
    const uint32x4_t bits = vreinterpretq_u32_f32(v), odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    vst1_u16(p, vshrn_n_u32(vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7FFF)), odd), 16));
  }
  static inline Pairs pairs(const uint16_t* p) { return vreinterpretq_u32_u16(vld1q_u16(p)); }
  static inline Pairs spread_pair(const uint16_t* p) {
    uint32_t two;
    __builtin_memcpy(&two, p, sizeof(two));
    return vdupq_n_u32(two);
  }
  static inline F low(Pairs p) { return vreinterpretq_f32_u32(vshlq_n_u32(p, 16)); }
  static inline F high(Pairs p) { return vreinterpretq_f32_u32(vandq_u32(p, vdupq_n_u32(0xFFFF0000u))); }

  static inline void codes(F v, uint8_t* p) {
    const uint16x4_t words = vqmovun_s32(vcvtnq_s32_f32(v));
    const uint32_t four = vget_lane_u32(vreinterpret_u32_u8(vqmovn_u16(vcombine_u16(words, words))), 0);
    __builtin_memcpy(p, &four, sizeof(four));
  }

  static inline float sum(F v) {
    const float32x2_t two = vadd_f32(vget_low_f32(v), vget_high_f32(v));
    return vget_lane_f32(vpadd_f32(two, two), 0);
  }
  static inline float least(F v) { return vminvq_f32(v); }
  static inline float most(F v) { return vmaxvq_f32(v); }
};

}  // namespace
}  // namespace nf::kernels
