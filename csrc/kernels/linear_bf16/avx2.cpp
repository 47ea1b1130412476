#include "kernels/linear_bf16/contract.h"

#if defined(__x86_64__)
#include "kernels/encoder_avx2.h"
#include "kernels/linear_bf16/loops.h"

namespace nf::kernels {
namespace {

const char* target() { return "avx2"; }
using Loops = LinearBf16Loops<EncoderAvx2>;

}  // namespace

const LinearBf16 linear_bf16_avx2 = {Loops::run, target};

}  // namespace nf::kernels

#endif
