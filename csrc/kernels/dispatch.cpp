#include "kernels/dispatch.h"

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
};

constexpr Row kRows[] = {
    {Target::scalar, &dot_f32_scalar, &l2sqr_f32_scalar, &dot_i8_scalar, &scan_i8_scalar, &scan_1bit_scalar},
#if defined(__x86_64__)
    {Target::avx2, &dot_f32_avx2, &l2sqr_f32_avx2, &dot_i8_avx2, &scan_i8_avx2, &scan_1bit_avx2},
    {Target::avx512, &dot_f32_avx512, &l2sqr_f32_avx512, &dot_i8_avx512, &scan_i8_avx512, &scan_1bit_avx512},
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

}  // namespace

const DotF32& dot_f32() { return pick(&Row::dot_f32); }
const L2SqrF32& l2sqr_f32() { return pick(&Row::l2sqr_f32); }
const DotI8& dot_i8() { return pick(&Row::dot_i8); }
const ScanI8& scan_i8() { return pick(&Row::scan_i8); }
const Scan1Bit& scan_1bit() { return pick(&Row::scan_1bit); }

}  // namespace nf::kernels
