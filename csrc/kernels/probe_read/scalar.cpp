#include "kernels/probe_read/contract.h"

namespace nf::kernels::probe_read {

std::uint64_t read_scalar(const void* data, std::size_t bytes) {
  const auto* words = static_cast<const std::uint64_t*>(data);
  std::uint64_t acc[8] = {};
  for (std::size_t i = 0; i < bytes / 8; i += 8) {
    for (int j = 0; j < 8; ++j) acc[j] ^= words[i + static_cast<std::size_t>(j)];
  }
  std::uint64_t sum = 0;
  for (const std::uint64_t word : acc) sum ^= word;
  return sum;
}

}  // namespace nf::kernels::probe_read
