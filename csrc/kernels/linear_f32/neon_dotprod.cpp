#include "kernels/linear_f32/contract.h"

#if defined(__aarch64__)
#include "kernels/encoder_neon.h"
#include "kernels/linear_f32/loops.h"

namespace nf::kernels {
namespace {

const char* target() { return "neon_dotprod"; }
using Loops = LinearF32Loops<EncoderNeon>;

}  // namespace

const LinearF32 linear_f32_neon_dotprod = {Loops::run, target};

}  // namespace nf::kernels

#endif
