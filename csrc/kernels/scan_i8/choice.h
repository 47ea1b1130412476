// Which of several scan kernels is the fastest here, by trying: instruction sets do not say it (wider registers can lower the clock, and a
// target that packs more into an instruction takes narrower query codes).
#pragma once

#include "kernels/scan_i8/contract.h"

namespace nf::kernels {

// Runs each candidate on a small scan (a few milliseconds in all) and returns the fastest; one whose products differ from a plain loop's is
// passed over. `candidates[0]` is what remains if every other is.
const ScanI8& fastest_scan_i8(const ScanI8* const* candidates, size_t count);

}  // namespace nf::kernels
