// The probes of the machine's ceilings: they end, and report positive rates for the targets that run here.
#include <map>
#include <stdexcept>
#include <string>

#include "harness.h"
#include "probes/probes.h"
#include "probes/rounds.h"

namespace nf::test {
namespace {

constexpr double kSeconds = 0.02;

TEST(probes_report_positive_rates) {
  for (const int threads : {1, 2}) {
    for (const auto& rates : {probes::peak_f32(threads, kSeconds), probes::peak_int8(threads, kSeconds), probes::peak_bf16(threads, kSeconds)}) {
      for (const auto& [target, rate] : rates) {
        const Note note(target, "threads", threads);
        CHECK(rate > 0.0);
      }
    }
    CHECK(probes::peak_f32(threads, kSeconds).count("scalar") == 1);
    for (const std::size_t bytes : {std::size_t{1}, std::size_t{100000}, std::size_t{1} << 20}) {
      CHECK(probes::read_bandwidth(bytes, threads, kSeconds) > 0.0);
      CHECK(probes::line_latency(bytes, threads, kSeconds) > 0.0);
    }
  }
}

TEST(a_probe_that_fails_in_one_thread_fails_as_a_whole) {
  const auto make = [](int thread) -> probes::Step {
    if (thread == 1) throw std::runtime_error("no memory here");
    return [] { return 1.0; };
  };
  CHECK_THROWS(std::runtime_error, "no memory here", probes::best_rate(2, kSeconds, make));
}

}  // namespace
}  // namespace nf::test
