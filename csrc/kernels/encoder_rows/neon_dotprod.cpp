#include "kernels/encoder_rows/contract.h"

#if defined(__aarch64__)
#include "kernels/encoder_neon.h"
#include "kernels/encoder_rows/loops.h"

namespace nf::kernels {
namespace {

const char* target() { return "neon_dotprod"; }
using Loops = EncoderRowsLoops<EncoderNeon>;

}  // namespace

const EncoderRows encoder_rows_neon_dotprod = {Loops::norm, Loops::quantize<false>, Loops::quantize<true>, nullptr, target};

}  // namespace nf::kernels

#endif
