#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>

#include "kernels/probe_read/contract.h"
#include "probes/buffer.h"
#include "probes/features.h"
#include "probes/probes.h"
#include "probes/rounds.h"

namespace nf::probes {
namespace {

using kernels::probe_read::kBlock;
using Read = std::uint64_t (*)(const void*, std::size_t);

// Both probes look at the clock after at most this much work, some 100 microseconds: rare enough to cost nothing, often enough to end in time.
constexpr std::size_t kBytesPerStep = std::size_t{1} << 20;
constexpr int kHopsPerStep = 1000;

Read widest_read() {
#if defined(__x86_64__)
  if (runs(simd::Target::avx512)) return kernels::probe_read::read_avx512;
  if (runs(simd::Target::avx2)) return kernels::probe_read::read_avx2;
#endif
  return kernels::probe_read::read_scalar;
}

struct alignas(64) Line {
  std::uint32_t next;
  std::uint32_t unused[15];
};
static_assert(sizeof(Line) == 64, "one cache line");

std::uint64_t mix(std::uint64_t& state) {  // splitmix64 (Steele, Lea, Flood 2014)
  std::uint64_t z = (state += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// Sattolo's algorithm: a random permutation that is one single cycle, so that a chase meets every line before it returns.
void make_cycle(Line* lines, std::uint32_t n, std::uint64_t seed) {
  for (std::uint32_t i = 0; i < n; ++i) lines[i].next = i;
  for (std::uint32_t i = n - 1; i > 0; --i) {
    const auto j = static_cast<std::uint32_t>(mix(seed) % i);
    std::swap(lines[i].next, lines[j].next);
  }
}

}  // namespace

double read_bandwidth(std::size_t bytes, int threads, double seconds) {
  const std::size_t slice = std::max(kBlock, bytes / static_cast<std::size_t>(threads) / kBlock * kBlock);
  const Read read = widest_read();
  return best_rate(threads, seconds, [=](int) -> Step {
    auto buffer = std::make_shared<Buffer>(slice);
    std::memset(buffer->data(), 1, slice);  // untouched pages would all be one page of zeros
    return [=, at = std::size_t{0}]() mutable {
      volatile std::uint64_t sink = 0;
      std::size_t done = 0;
      while (done < kBytesPerStep) {
        const std::size_t piece = std::min(slice - at, kBytesPerStep - done);
        sink = read(static_cast<const char*>(buffer->data()) + at, piece);
        at = at + piece == slice ? 0 : at + piece;
        done += piece;
      }
      (void)sink;
      return static_cast<double>(done);
    };
  });
}

double line_latency(std::size_t bytes, int threads, double seconds) {
  const auto lines = static_cast<std::uint32_t>(std::max<std::size_t>(2, bytes / static_cast<std::size_t>(threads) / sizeof(Line)));
  const double hops_per_second = best_rate(threads, seconds, [=](int thread) -> Step {
    auto buffer = std::make_shared<Buffer>(lines * sizeof(Line));
    make_cycle(static_cast<Line*>(buffer->data()), lines, static_cast<std::uint64_t>(thread));
    return [=, at = std::uint32_t{0}]() mutable {
      const Line* cycle = static_cast<const Line*>(buffer->data());
      for (int hop = 0; hop < kHopsPerStep; ++hop) at = cycle[at].next;
      return static_cast<double>(kHopsPerStep);
    };
  });
  return 1e9 * threads / hops_per_second;
}

}  // namespace nf::probes
