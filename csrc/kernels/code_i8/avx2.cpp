#include "kernels/code_i8/contract.h"
#include "kernels/code_i8/loops.h"

#if defined(__x86_64__)

namespace nf::kernels {
namespace {

const char* target() { return "avx2"; }

}  // namespace

const CodeI8 code_i8_avx2 = {rest, codes, fine, target};

}  // namespace nf::kernels

#endif
