#include "kernels/code_i8/contract.h"
#include "kernels/code_i8/loops.h"

namespace nf::kernels {
namespace {

const char* target() { return "scalar"; }

}  // namespace

const CodeI8 code_i8_scalar = {rest, codes, fine, target};

}  // namespace nf::kernels
