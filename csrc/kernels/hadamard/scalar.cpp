#include "kernels/hadamard/contract.h"
#include "kernels/hadamard/loops.h"

namespace nf::kernels {
namespace {

const char* target() { return "scalar"; }

}  // namespace

const Hadamard hadamard_scalar = {whole_round, target};

}  // namespace nf::kernels
