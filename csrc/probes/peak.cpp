#include <cstdint>

#include "kernels/probe_peak/contract.h"
#include "probes/features.h"
#include "probes/probes.h"
#include "probes/rounds.h"

namespace nf::probes {
namespace {

using kernels::probe_peak::Loop;
using simd::Target;

// A piece of about 50 microseconds at 1e11 operations per second, about 5 at the rate of an AMX core: the clock costs well under 1 %.
constexpr double kOpsPerStep = 5e6;

double rate(const Loop& loop, int threads, double seconds) {
  const auto iterations = static_cast<std::uint64_t>(kOpsPerStep / loop.ops_per_iteration) + 1;
  return best_rate(threads, seconds, [&loop, iterations](int) -> Step {
    return [&loop, iterations] {
      volatile float sink = loop.run(iterations);
      (void)sink;
      return loop.ops_per_iteration * static_cast<double>(iterations);
    };
  });
}

}  // namespace

std::map<std::string, double> peak_f32(int threads, double seconds) {
  std::map<std::string, double> rates;
  rates["scalar"] = rate(kernels::probe_peak::f32_scalar, threads, seconds);
#if defined(__x86_64__)
  if (runs(Target::avx2)) rates["avx2"] = rate(kernels::probe_peak::f32_avx2, threads, seconds);
  if (runs(Target::avx512)) rates["avx512"] = rate(kernels::probe_peak::f32_avx512, threads, seconds);
#endif
  return rates;
}

std::map<std::string, double> peak_int8(int threads, double seconds) {
  std::map<std::string, double> rates;
#if defined(__x86_64__)
  if (runs(Target::avx2)) rates["avx2"] = rate(kernels::probe_peak::int8_avx2, threads, seconds);
  if (runs(Target::avxvnni)) rates["avxvnni"] = rate(kernels::probe_peak::int8_avxvnni, threads, seconds);
  if (runs(Target::avx512vnni)) rates["avx512vnni"] = rate(kernels::probe_peak::int8_avx512vnni, threads, seconds);
  if (runs(simd::Target::amx)) rates["amx"] = rate(kernels::probe_peak::int8_amx, threads, seconds);
#endif
  return rates;
}

std::map<std::string, double> peak_bf16(int threads, double seconds) {
  std::map<std::string, double> rates;
#if defined(__x86_64__)
  if (runs_avx512bf16()) rates["avx512bf16"] = rate(kernels::probe_peak::bf16_avx512bf16, threads, seconds);
  if (runs(simd::Target::amx)) rates["amx"] = rate(kernels::probe_peak::bf16_amx, threads, seconds);
#endif
  return rates;
}

}  // namespace nf::probes
