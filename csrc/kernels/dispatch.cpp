#include "kernels/dispatch.h"

#include "kernels/dot_bf16/choice.h"
#include "kernels/scan_i8/choice.h"
#include "simd/targets.h"

namespace nf::kernels {
namespace {

using simd::Target;

// One row per target; an empty place falls to the target's parent. scalar's row is full.
struct Row {
  Target target;
  const DotF32* dot_f32;
  const L2SqrF32* l2sqr_f32;
  const DotI8* dot_i8;
  const ScanI8* scan_i8;
  const Scan1Bit* scan_1bit;
  const Estimate1Bit* estimate_1bit;
  const InsertKey* insert_key;
  const Hadamard* hadamard;
  const CodeI8* code_i8;
  const DotBf16* dot_bf16;  // does not fall to the parent: scalar's is the readable form
};

constexpr Row kRows[] = {
    {Target::scalar, &dot_f32_scalar, &l2sqr_f32_scalar, &dot_i8_scalar, &scan_i8_scalar, &scan_1bit_scalar, &estimate_1bit_scalar,
     &insert_key_scalar, &hadamard_scalar, &code_i8_scalar, &dot_bf16_scalar},
#if defined(__x86_64__)
    {Target::avx2, &dot_f32_avx2, &l2sqr_f32_avx2, &dot_i8_avx2, &scan_i8_avx2, &scan_1bit_avx2, &estimate_1bit_avx2, nullptr,
     &hadamard_avx2, &code_i8_avx2, nullptr},
    {Target::avxvnni, nullptr, nullptr, nullptr, &scan_i8_avxvnni, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr},
    {Target::avx512, &dot_f32_avx512, &l2sqr_f32_avx512, &dot_i8_avx512, &scan_i8_avx512, &scan_1bit_avx512, &estimate_1bit_avx512,
     &insert_key_avx512, &hadamard_avx512, &code_i8_avx512, nullptr},
    {Target::avx512vnni, nullptr, nullptr, &dot_i8_avx512vnni, &scan_i8_avx512vnni, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr},
    {Target::amx, nullptr, nullptr, nullptr, &scan_i8_amx, nullptr, nullptr, nullptr, nullptr, nullptr, &dot_bf16_amx},
#elif defined(__aarch64__)
    {Target::neon_dotprod, nullptr, nullptr, nullptr, &scan_i8_neon_dotprod, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr},
#endif
};

template <typename Kernel>
const Kernel& pick(const Kernel* Row::*place) {
  for (Target target = simd::active();; target = simd::info_of(target).parent) {
    for (const Row& row : kRows) {
      if (row.target == target && row.*place != nullptr) return *(row.*place);
    }
  }
}

const ScanI8& measured_scan_i8() {
  const ScanI8* candidates[sizeof(kRows) / sizeof(kRows[0])];
  std::size_t count = 0;
  for (const Row& row : kRows) {
    if (row.scan_i8 != nullptr && simd::runs_here(simd::info_of(row.target))) candidates[count++] = row.scan_i8;
  }
  return fastest_scan_i8(candidates, count);
}

const DotBf16* dot_bf16_of(Target target) {
  for (const Row& row : kRows) {
    if (row.target == target) return row.dot_bf16;
  }
  return nullptr;
}

const DotBf16* measured_dot_bf16() {
  const Target target = simd::active();
  const DotBf16* const candidate = dot_bf16_of(target);
  return candidate == nullptr ? nullptr : faster_dot_bf16(*candidate, dot_f32());
}

}  // namespace

const DotF32& dot_f32() { return pick(&Row::dot_f32); }
const L2SqrF32& l2sqr_f32() { return pick(&Row::l2sqr_f32); }
const DotI8& dot_i8() { return pick(&Row::dot_i8); }
const Scan1Bit& scan_1bit() { return pick(&Row::scan_1bit); }
const Estimate1Bit& estimate_1bit() { return pick(&Row::estimate_1bit); }
const InsertKey& insert_key() { return pick(&Row::insert_key); }
const Hadamard& hadamard() { return pick(&Row::hadamard); }
const CodeI8& code_i8() { return pick(&Row::code_i8); }

const ScanI8& scan_i8() {
  if (simd::forced()) return pick(&Row::scan_i8);
  static const ScanI8& fastest = measured_scan_i8();
  return fastest;
}

const DotBf16* dot_bf16() {
  if (simd::forced()) return dot_bf16_of(simd::active());
  static const DotBf16* const faster = measured_dot_bf16();
  return faster;
}

}  // namespace nf::kernels
