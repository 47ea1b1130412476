// Which probes this CPU and operating system can run.
#pragma once

#include "simd/targets.h"

namespace nf::probes {

bool runs(simd::Target target);

// AVX-512 BF16 belongs to no target of the table: no kernel of ours uses it, only a probe does.
bool runs_avx512bf16();

}  // namespace nf::probes
