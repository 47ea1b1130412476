#include "kernels/scan_i8/contract.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#include "kernels/scan_i8/loops.h"

namespace nf::kernels {
namespace {

const char* target() { return "neon_dotprod"; }

struct Lanes {
  using Ints = int32x4_t;
  using Products = int32x4_t;
  static constexpr bool kLow = true;
  static constexpr size_t kRows = 4, kParts = 4;
  // Six queries by a block of rows: twenty-four sums, four registers of rows and one of query codes of thirty-two.
  static constexpr int kRegisters = 4, kQueries = 6;

  static inline const int8_t* codes(const ScanI8Queries& queries) { return queries.narrow; }
  static inline Ints start(int32_t) { return vdupq_n_s32(0); }
  static inline Ints widen(const int8_t* p) { return vreinterpretq_s32_s8(vld1q_s8(p)); }
  static inline Ints spread(const int8_t* q) {
    int32_t four;
    __builtin_memcpy(&four, q, sizeof(four));
    return vdupq_n_s32(four);
  }
  static inline Ints plus(Ints sum, Ints rows, Ints query) { return vdotq_s32(sum, vreinterpretq_s8_s32(rows), vreinterpretq_s8_s32(query)); }
  static inline Ints added(Ints a, Ints b) { return vaddq_s32(a, b); }
  static inline void fold(const Ints* sums, Products* out) {
    for (int r = 0; r < kRegisters; ++r) out[r] = sums[r];
  }
  static inline uint32_t above(float32x4_t values, float cut, const ScanI8Query& query, const float* scale, const float* error, const float* add) {
    const float32x4_t beside = vfmaq_f32(vld1q_f32(add), vdupq_n_f32(query.slack), vld1q_f32(error));
    const float32x4_t upper = vfmaq_f32(beside, vdupq_n_f32(query.factor), vmulq_f32(values, vld1q_f32(scale)));
    const uint32x4_t each = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(vcgeq_f32(upper, vdupq_n_f32(cut)), each));
  }
  static inline uint32_t reached(Products products, const ScanI8Query& query, const float* scale, const float* error, const float* add) {
    return above(vcvtq_f32_s32(products), query.cut, query, scale, error, add);
  }
  static inline uint32_t reached_low(Products products, Products low, const ScanI8Query& query, const float* scale, const float* error, const float* add) {
    const float32x4_t values = vfmaq_f32(vcvtq_f32_s32(products), vcvtq_f32_s32(low), vdupq_n_f32(1.0f / kLowSteps));
    return above(values, query.fine_cut, query, scale, error, add);
  }
  static inline void store(Products products, int32_t* out) { vst1q_s32(out, products); }
};

}  // namespace

const ScanI8 scan_i8_neon_dotprod = {ScanLoops<Lanes>::scan, target, kNarrowCodes};

}  // namespace nf::kernels

#endif
