// Mistakes on purpose, made by the engine's own code on the engine's own threads: test_native.py wants each sanitizer to report its own.
// Not part of the native tests.
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "codec/rows.h"
#include "harness.h"
#include "oracle.h"
#include "parallel/pool.h"

namespace nf::test {
namespace {

constexpr std::size_t kDim = 64, kRows = 512;

// Rows to where `places` of them have room: with fewer places than rows, threads share them.
void encode(std::size_t places) {
  const std::vector<float> row(kDim, 1.0f);
  std::vector<unsigned char> out(places * kDim * sizeof(std::uint16_t));
  // Relaxed, so that waiting for each other orders nothing: without it one thread might do both parts.
  std::atomic<int> begun{0};
  const Status status = parallel::parallel_for(kRows, 2, [&](std::size_t begin, std::size_t end, std::size_t) {
    begun.fetch_add(1, std::memory_order_relaxed);
    while (begun.load(std::memory_order_relaxed) < 2) std::this_thread::yield();
    for (std::size_t i = begin; i < end; ++i) {
      codec::encode_row(Storage::bfloat16, row.data(), kDim, out.data() + i % places * kDim * sizeof(std::uint16_t));
    }
  });
  CHECK(status.ok());
}

TEST(right) {
  encode(kRows);
}

TEST(race) {
  encode(1);
}

TEST(overread) {
  const Tight<float> row(kDim);
  std::vector<unsigned char> out((kDim + 1) * sizeof(std::uint16_t));
  codec::encode_row(Storage::bfloat16, row.data(), kDim + 1, out.data());
}

}  // namespace
}  // namespace nf::test
