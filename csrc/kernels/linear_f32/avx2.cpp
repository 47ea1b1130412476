#include "kernels/linear_f32/contract.h"

#if defined(__x86_64__)
#include "kernels/encoder_avx2.h"
#include "kernels/linear_f32/loops.h"

namespace nf::kernels {
namespace {

const char* target() { return "avx2"; }
using Loops = LinearF32Loops<EncoderAvx2>;

}  // namespace

const LinearF32 linear_f32_avx2 = {Loops::run, target};

}  // namespace nf::kernels

#endif
