#include "kernels/hadamard/contract.h"
#include "kernels/hadamard/loops.h"

#if defined(__x86_64__)
namespace nf::kernels {
namespace {

const char* target() { return "avx2"; }

}  // namespace

const Hadamard hadamard_avx2 = {whole_round, target};

}  // namespace nf::kernels

#endif
