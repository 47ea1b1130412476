#include "simd/cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace nf::simd {
namespace {

#if defined(__x86_64__)

struct Leaf {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

Leaf cpuid(unsigned leaf, unsigned sub) {
  Leaf r;
  if (__get_cpuid_count(leaf, sub, &r.a, &r.b, &r.c, &r.d) == 0) return Leaf{};
  return r;
}

std::uint64_t xgetbv0() {
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<std::uint64_t>(high) << 32 | low;
}

// Linux, Documentation/arch/x86/xstate.rst: the 8 KiB of tile state are granted to a process on request, for good, and inherited by fork. The
// request fails where a thread has an alternate signal stack too small for them: then there are no tiles here.
bool tiles_granted() {
#if defined(__linux__)
  constexpr long kArchReqXcompPerm = 0x1023;
  constexpr long kXfeatureXtiledata = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureXtiledata) == 0;
#else
  return false;
#endif
}

bool bit(unsigned word, int index) { return (word >> index & 1u) != 0; }

std::uint32_t detect() {
  // Bit positions: Intel SDM volume 2A, CPUID; XCR0 bits: volume 1, section 13.3.
  const Leaf one = cpuid(1, 0);
  const bool osxsave = bit(one.c, 27);
  const std::uint64_t xcr0 = osxsave ? xgetbv0() : 0;
  const bool os_ymm = (xcr0 & 0x6) == 0x6;
  const bool os_zmm = (xcr0 & 0xE6) == 0xE6;
  const bool os_tile = (xcr0 & 0x60000) == 0x60000;
  const Leaf seven = cpuid(7, 0);
  const Leaf seven_one = cpuid(7, 1);
  std::uint32_t found = 0;
  if (os_ymm && bit(one.c, 28)) {
    if (bit(seven.b, 5)) found |= kAvx2;
    if (bit(one.c, 12)) found |= kFma;
    if (bit(one.c, 29)) found |= kF16c;
    if (seven.a >= 1 && bit(seven_one.a, 4)) found |= kAvxVnni;
  }
  if (os_zmm) {
    if (bit(seven.b, 16)) found |= kAvx512F;
    if (bit(seven.b, 17)) found |= kAvx512Dq;
    if (bit(seven.b, 30)) found |= kAvx512Bw;
    if (bit(seven.b, 31)) found |= kAvx512Vl;
    if (bit(seven.c, 1)) found |= kAvx512Vbmi;
    if (bit(seven.c, 11)) found |= kAvx512Vnni;
    if (seven.a >= 1 && bit(seven_one.a, 5)) found |= kAvx512Bf16;
    if (bit(seven.d, 23)) found |= kAvx512Fp16;
  }
  if (os_tile && bit(seven.d, 24) && tiles_granted()) {
    found |= kAmxTile;
    if (bit(seven.d, 25)) found |= kAmxInt8;
    if (bit(seven.d, 22)) found |= kAmxBf16;
  }
  return found;
}

#elif defined(__aarch64__) && defined(__linux__)

std::uint32_t detect() {
  // Linux arch/arm64/include/uapi/asm/hwcap.h: HWCAP_ASIMDDP is bit 20, HWCAP2_I8MM is bit 13.
  std::uint32_t found = 0;
  if ((getauxval(AT_HWCAP) >> 20 & 1u) != 0) found |= kNeonDotprod;
  if ((getauxval(AT_HWCAP2) >> 13 & 1u) != 0) found |= kNeonI8mm;
  return found;
}

#else

std::uint32_t detect() { return 0; }

#endif

}  // namespace

std::uint32_t cpu_features() {
  static const std::uint32_t found = detect();
  return found;
}

}  // namespace nf::simd
