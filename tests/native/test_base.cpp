// Checksums, aligned memory, the table of targets.
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <new>
#include <utility>

#include "base/aligned.h"
#include "base/crc32c.h"
#include "harness.h"
#include "oracle.h"
#include "simd/targets.h"

namespace nf::test {
namespace {

TEST(crc32c_agrees_with_its_definition) {
  CHECK(crc32c("123456789", 9) == 0xE3069283u);
  Random random(4);
  for (std::size_t bytes = 0; bytes < 70; ++bytes) {
    for (std::size_t offset = 0; offset < 8; ++offset) {
      Tight<unsigned char> data(bytes, offset);
      std::uint32_t bitwise = ~0u;
      for (std::size_t i = 0; i < bytes; ++i) {
        data[i] = static_cast<unsigned char>(random());
        bitwise ^= data[i];
        for (int bit = 0; bit < 8; ++bit) bitwise = (bitwise >> 1) ^ ((bitwise & 1u) != 0 ? 0x82F63B78u : 0u);
      }
      CHECK(crc32c(data.data(), bytes) == ~bitwise);
      CHECK(crc32c_by_tables(data.data(), bytes) == ~bitwise);
      CHECK(crc32c(data.data() + bytes / 3, bytes - bytes / 3, crc32c(data.data(), bytes / 3)) == ~bitwise);
    }
  }
}

TEST(aligned_memory_is_aligned_and_moves) {
  AlignedBuffer<float> a(5), b;
  CHECK(reinterpret_cast<std::uintptr_t>(a.data()) % kCacheLine == 0);
  a.zero();
  b = std::move(a);
  CHECK(b.size() == 5 && b[4] == 0.0f && a.data() == nullptr);
  const AlignedBuffer<float> c(std::move(b)), none(0);
  CHECK(c.size() == 5 && none.data() == nullptr);
  CHECK_THROWS(std::bad_alloc, "", AlignedBuffer<double>(std::numeric_limits<std::size_t>::max() / 8));
}

TEST(targets_that_cannot_run_are_refused) {
  CHECK_THROWS(InputError, "unknown target 'nonsense'", simd::force("nonsense"));
  for (std::size_t i = 0; i < simd::kTargetCount; ++i) {
    const simd::TargetInfo& info = simd::target_at(i);
    CHECK(&simd::info_of(info.target) == &info);
    if (!info.built || !simd::runs_here(info)) CHECK_THROWS(InputError, info.name, simd::force(info.name));
  }
  int tried = 0;
  on_each_target([&](const std::string& name) {
    ++tried;
    CHECK(simd::info_of(simd::active()).name == name && simd::forced_name() == name);
  });
  CHECK(tried >= 1);
}

}  // namespace
}  // namespace nf::test
