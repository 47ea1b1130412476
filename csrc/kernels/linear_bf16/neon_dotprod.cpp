#include "kernels/linear_bf16/contract.h"

#if defined(__aarch64__)
#include "kernels/encoder_neon.h"
#include "kernels/linear_bf16/loops.h"

namespace nf::kernels {
namespace {

const char* target() { return "neon_dotprod"; }
using Loops = LinearBf16Loops<EncoderNeon>;

}  // namespace

const LinearBf16 linear_bf16_neon_dotprod = {Loops::run, target};

}  // namespace nf::kernels

#endif
