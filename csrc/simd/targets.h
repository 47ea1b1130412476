// The table of targets: what each needs, whether this build has kernels for it, whether this CPU can run it, which is active.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace nf::simd {

enum class Target { scalar, avx2, avxvnni, avx512, avx512vnni, amx, neon_dotprod, neon_i8mm };

struct TargetInfo {
  Target target;
  const char* name;
  Target parent;               // whose kernels stand in where this target has none of its own
  std::uint32_t needs;         // Feature bits
  const char* needs_in_words;  // for a person
  bool built;                  // this build holds kernels for it
};

constexpr std::size_t kTargetCount = 8;
const TargetInfo& info_of(Target target);
const TargetInfo& target_at(std::size_t index);

// True when this CPU and operating system can run the target's instructions.
bool runs_here(const TargetInfo& info);

// The target whose kernels are used: the forced one, else the best that is built and runs here.
// Throws InputError when NEARFIELD_TARGET names a target that does not exist, is not built or does not run here.
Target active();

// Forces a target for this process, over NEARFIELD_TARGET; "" returns to the environment's choice. Throws InputError as active() does.
// For tests and tools: not to be called while kernels run on other threads.
void force(const std::string& name);

// True where a target is forced, whether by force() or by NEARFIELD_TARGET. Throws InputError as active() does.
bool forced();

// The forced target's name ("" when none is forced).
std::string forced_name();

}  // namespace nf::simd
