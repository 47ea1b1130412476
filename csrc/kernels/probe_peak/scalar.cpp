// Baseline ISA, separate multiply and add: what the compiler makes of plain C++ where nothing better exists.
#include "kernels/probe_peak/contract.h"

namespace nf::kernels::probe_peak {
namespace {

// 32 floats are 8 SSE registers: 8 chains cover a multiply and an add of 3-4 cycles each on one or two ports.
constexpr int kLanes = 32;

float run(std::uint64_t iterations) {
  float acc[kLanes];
  for (int i = 0; i < kLanes; ++i) acc[i] = static_cast<float>(i);
  // The fixed point of x * 0.5 + 1 is 2: neither denormals nor overflow, however long the loop runs.
  for (std::uint64_t n = 0; n < iterations; ++n) {
    for (int i = 0; i < kLanes; ++i) acc[i] = acc[i] * 0.5f + 1.0f;
  }
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += acc[i];
  return sum;
}

}  // namespace

const Loop f32_scalar = {2.0 * kLanes, run};

}  // namespace nf::kernels::probe_peak
