#include "kernels/attention/contract.h"

#if defined(__x86_64__)
#include "kernels/encoder_avx2.h"
#include "kernels/attention/loops.h"

namespace nf::kernels {
namespace {

const char* target() { return "avx2"; }
using Loops = AttentionLoops<EncoderAvx2>;

}  // namespace

const AttentionBf16 attention_bf16_avx2 = {Loops::run<uint16_t>, Loops::scratch_bytes, target};
const AttentionF32 attention_f32_avx2 = {Loops::run<float>, Loops::scratch_bytes, target};

}  // namespace nf::kernels

#endif
