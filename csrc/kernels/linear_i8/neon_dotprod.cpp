#include "kernels/linear_i8/contract.h"

#if defined(__aarch64__)
#include "kernels/encoder_neon.h"
#include "kernels/linear_i8/loops.h"

namespace nf::kernels {
namespace {

const char* target() { return "neon_dotprod"; }

// The instruction multiplies signed bytes: codes are moved down by 128, and sums begin with 128 times the sum of their column's weights.
struct Products {
  using I = int32x4_t;
  static constexpr int kParts = 4, kRows = 6;  // twenty-four sums, four registers of weights and one of codes of thirty-two
  static constexpr bool kWeightsFirst = true;
  struct Start {
    I sums[kParts];
  };

  static inline Start start(const int8_t* weights, size_t depth) {
    Start out;
    const int8x16_t ones = vdupq_n_s8(1);
    for (int p = 0; p < kParts; ++p) {
      I sum = vdupq_n_s32(0);
      for (size_t k = 0; k < depth; k += 4) sum = vdotq_s32(sum, vld1q_s8(weights + k * kPanelColumns + 16 * p), ones);
      out.sums[p] = vshlq_n_s32(sum, 7);
    }
    return out;
  }
  static inline I begin(const Start& start, int p) { return start.sums[p]; }
  static inline I weights(const int8_t* p) { return vreinterpretq_s32_s8(vld1q_s8(p)); }
  static inline I spread(const uint8_t* q) {
    uint32_t four;
    __builtin_memcpy(&four, q, sizeof(four));
    return vreinterpretq_s32_u32(vdupq_n_u32(four ^ 0x80808080u));
  }
  static inline I plus(I sum, I weights, I four) { return vdotq_s32(sum, vreinterpretq_s8_s32(weights), vreinterpretq_s8_s32(four)); }
  static inline float32x4_t finish(const I (&sums)[kParts], int v) { return vcvtq_f32_s32(sums[v]); }
};

}  // namespace

const LinearI8 linear_i8_neon_dotprod = {LinearI8Loops<EncoderNeon, Products>::run, nullptr, target};

}  // namespace nf::kernels

#endif
