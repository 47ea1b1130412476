#include "kernels/attention/contract.h"

#if defined(__aarch64__)
#include "kernels/encoder_neon.h"
#include "kernels/attention/loops.h"

namespace nf::kernels {
namespace {

const char* target() { return "neon_dotprod"; }
using Loops = AttentionLoops<EncoderNeon>;

}  // namespace

const AttentionBf16 attention_bf16_neon_dotprod = {Loops::run<uint16_t>, Loops::scratch_bytes, target};
const AttentionF32 attention_f32_neon_dotprod = {Loops::run<float>, Loops::scratch_bytes, target};

}  // namespace nf::kernels

#endif
