#include "kernels/encoder_rows/contract.h"

#if defined(__x86_64__)
#include "kernels/encoder_avx2.h"
#include "kernels/encoder_rows/loops.h"

namespace nf::kernels {
namespace {

const char* target() { return "avx2"; }
using Loops = EncoderRowsLoops<EncoderAvx2>;

}  // namespace

const EncoderRows encoder_rows_avx2 = {Loops::norm, Loops::quantize<false>, Loops::quantize<true>, nullptr, target};

}  // namespace nf::kernels

#endif
