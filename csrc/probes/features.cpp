#include "probes/features.h"

#if defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace nf::probes {
namespace {

#if defined(__x86_64__)
bool may_use_tiles() {
  // Linux, Documentation/arch/x86/xstate.rst: the 8 KiB of tile state are granted per process, on request.
  constexpr long kArchReqXcompPerm = 0x1023;
  constexpr long kXfeatureXtiledata = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureXtiledata) == 0;
}
#endif

}  // namespace

bool runs(simd::Target target) { return simd::runs_here(simd::info_of(target)); }

bool runs_avx512bf16() {
#if defined(__x86_64__)
  return runs(simd::Target::avx512) && __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

bool runs_amx() {
#if defined(__x86_64__)
  if (!runs(simd::Target::amx)) return false;
  static const bool granted = may_use_tiles();
  return granted;
#else
  return false;
#endif
}

}  // namespace nf::probes
