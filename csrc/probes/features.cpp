#include "probes/features.h"

namespace nf::probes {

bool runs(simd::Target target) { return simd::runs_here(simd::info_of(target)); }

bool runs_avx512bf16() {
#if defined(__x86_64__)
  return runs(simd::Target::avx512) && __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

}  // namespace nf::probes
