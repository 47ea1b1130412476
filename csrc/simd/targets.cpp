#include "simd/targets.h"

#include <atomic>
#include <cstdlib>

#include "base/status.h"
#include "simd/cpu.h"

namespace nf::simd {
namespace {

#if defined(__x86_64__)
constexpr bool kX86 = true;
#else
constexpr bool kX86 = false;
#endif
#if defined(__aarch64__)
constexpr bool kArm = true;
#else
constexpr bool kArm = false;
#endif

constexpr std::uint32_t kNeedsAvx2 = kAvx2 | kFma | kF16c;
constexpr std::uint32_t kNeedsAvx512 = kNeedsAvx2 | kAvx512F | kAvx512Bw | kAvx512Vl | kAvx512Dq;

// From the least to the best of each architecture: the last one that is built and runs here is the default.
constexpr TargetInfo kTargets[kTargetCount] = {
    {Target::scalar, "scalar", Target::scalar, 0, "any CPU", true},
    {Target::avx2, "avx2", Target::scalar, kNeedsAvx2, "AVX2, FMA, F16C", kX86},
    {Target::avxvnni, "avxvnni", Target::avx2, kNeedsAvx2 | kAvxVnni, "avx2 and AVX-VNNI", kX86},
    {Target::avx512, "avx512", Target::avx2, kNeedsAvx512, "avx2 and AVX-512 F, BW, VL, DQ", kX86},
    {Target::avx512vnni, "avx512vnni", Target::avx512, kNeedsAvx512 | kAvx512Vnni, "avx512 and AVX-512 VNNI", kX86},
    {Target::amx, "amx", Target::avx512vnni, kNeedsAvx512 | kAvx512Vnni | kAvx512Vbmi | kAvx512Bf16 | kAmxTile | kAmxInt8 | kAmxBf16,
     "avx512vnni, AVX-512 VBMI and BF16, and AMX TILE, INT8, BF16", kX86},
    {Target::neon_dotprod, "neon_dotprod", Target::scalar, kNeonDotprod, "Arm NEON with DOTPROD", kArm},
    {Target::neon_i8mm, "neon_i8mm", Target::neon_dotprod, kNeonDotprod | kNeonI8mm, "neon_dotprod and I8MM", false},
};

constexpr int kNotForced = -1;
std::atomic<int> forced_by_call{kNotForced};

std::string usable_names() {
  std::string names;
  for (const TargetInfo& info : kTargets) {
    if (info.built && runs_here(info)) names += (names.empty() ? "" : ", ") + std::string(info.name);
  }
  return names;
}

// `where` names the source of the word in the error.
Target parse(const std::string& name, const char* where) {
  for (const TargetInfo& info : kTargets) {
    if (name != info.name) continue;
    if (!runs_here(info)) {
      throw InputError(std::string(where) + ": target '" + name + "' given, this CPU cannot run it (needs " + info.needs_in_words +
                       "); usable here: " + usable_names());
    }
    if (!info.built) {
      throw InputError(std::string(where) + ": target '" + name + "' given, this build has no kernels for it; usable here: " + usable_names());
    }
    return info.target;
  }
  throw InputError(std::string(where) + ": unknown target '" + name + "' given; usable here: " + usable_names());
}

const char* from_environment() {
  const char* value = std::getenv("NEARFIELD_TARGET");
  return value != nullptr ? value : "";
}

Target best() {
  Target found = Target::scalar;
  for (const TargetInfo& info : kTargets) {
    if (info.built && runs_here(info)) found = info.target;
  }
  return found;
}

// Read once: the environment of a running process is not a switch, and getenv beside setenv is a race.
struct FromEnvironment {
  std::string name = from_environment();
  Target target = Target::scalar;
  std::string error;
  FromEnvironment() {
    try {
      target = name.empty() ? best() : parse(name, "NEARFIELD_TARGET");
    } catch (const InputError& problem) {
      error = problem.what();
    }
  }
};

const FromEnvironment& environment() {
  static const FromEnvironment choice;
  return choice;
}

}  // namespace

const TargetInfo& info_of(Target target) { return kTargets[static_cast<std::size_t>(target)]; }
const TargetInfo& target_at(std::size_t index) { return kTargets[index]; }

bool runs_here(const TargetInfo& info) { return (cpu_features() & info.needs) == info.needs; }

Target active() {
  const int forced = forced_by_call.load(std::memory_order_acquire);
  if (forced != kNotForced) return static_cast<Target>(forced);
  const FromEnvironment& choice = environment();
  if (!choice.error.empty()) throw InputError(choice.error);
  return choice.target;
}

void force(const std::string& name) {
  forced_by_call.store(name.empty() ? kNotForced : static_cast<int>(parse(name, "force_target")), std::memory_order_release);
}

bool forced() {
  if (forced_by_call.load(std::memory_order_acquire) != kNotForced) return true;
  const FromEnvironment& choice = environment();
  if (!choice.error.empty()) throw InputError(choice.error);
  return !choice.name.empty();
}

std::string forced_name() {
  const int forced = forced_by_call.load(std::memory_order_acquire);
  return forced != kNotForced ? std::string(kTargets[forced].name) : environment().name;
}

}  // namespace nf::simd
