#include "kernels/encoder_dispatch.h"

#include "simd/cpu.h"
#include "simd/targets.h"

namespace nf::kernels {
namespace {

using simd::Target;

// An empty place falls to the target's next row, then to its parent. scalar's row is full. Where `needs` names more than the target does (Feature bits), the
// row is for CPUs that have it: float16 came with the first cores that have AMX, but a virtual machine may hide it.
struct Row {
  Target target;
  EncoderKernels kernels;
  std::uint32_t needs = 0;
};

constexpr Row kRows[] = {
    {Target::scalar, {&linear_i8_scalar, &linear_bf16_scalar, &linear_f32_scalar, &attention_bf16_scalar, &attention_f32_scalar, &encoder_rows_scalar}},
#if defined(__x86_64__)
    {Target::avx2, {&linear_i8_avx2, &linear_bf16_avx2, &linear_f32_avx2, &attention_bf16_avx2, &attention_f32_avx2, &encoder_rows_avx2}},
    {Target::avxvnni, {&linear_i8_avxvnni, nullptr, nullptr, nullptr, nullptr, nullptr}},
    {Target::avx512, {nullptr, &linear_bf16_avx512, &linear_f32_avx512, &attention_bf16_avx512, &attention_f32_avx512, &encoder_rows_avx512}},
    {Target::avx512vnni, {&linear_i8_avx512vnni, nullptr, nullptr, nullptr, nullptr, nullptr}},
#if !defined(NF_WITHOUT_AVX512FP16)
    {Target::amx, {nullptr, nullptr, nullptr, nullptr, nullptr, &encoder_rows_avx512fp16}, simd::kAvx512Fp16},
#endif
    {Target::amx, {&linear_i8_amx, &linear_bf16_amx, nullptr, &attention_bf16_amx, nullptr, nullptr}},
#elif defined(__aarch64__)
    {Target::neon_dotprod,
     {&linear_i8_neon_dotprod, &linear_bf16_neon_dotprod, &linear_f32_neon_dotprod, &attention_bf16_neon_dotprod, &attention_f32_neon_dotprod,
      &encoder_rows_neon_dotprod}},
#endif
};

template <typename Kernel>
const Kernel* pick(const Kernel* EncoderKernels::*place, Target target) {
  const std::uint32_t features = simd::cpu_features();
  for (;; target = simd::info_of(target).parent) {
    for (const Row& row : kRows) {
      if (row.target == target && row.kernels.*place != nullptr && (row.needs & ~features) == 0) return row.kernels.*place;
    }
  }
}

}  // namespace

EncoderKernels encoder_kernels() {
  const Target target = simd::active();
  return {pick(&EncoderKernels::linear_i8, target),      pick(&EncoderKernels::linear_bf16, target),   pick(&EncoderKernels::linear_f32, target),
          pick(&EncoderKernels::attention_bf16, target), pick(&EncoderKernels::attention_f32, target), pick(&EncoderKernels::rows, target)};
}

}  // namespace nf::kernels
