// The permission for AMX state has been asked by whoever calls; the tile configuration lives only inside each call.
#if defined(__x86_64__)
#include "kernels/amx_tiles.h"
#include "kernels/probe_peak/contract.h"

namespace nf::kernels::probe_peak {
namespace {

// Tiles 0-5 accumulate, 6 and 7 hold the operands. Latency 52 cycles, one instruction per 16: 4 chains needed.
constexpr int kChains = 6;

void configure() {
  configure_whole();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
}

float finish() {
  alignas(64) std::int32_t sums[kTileRows * kTileBytes / 4];
  _tile_stored(0, sums, kTileBytes);
  _tile_release();
  return static_cast<float>(sums[0]);
}

float int8(std::uint64_t iterations) {
  configure();
  for (std::uint64_t n = 0; n < iterations; ++n) {
    _tile_dpbssd(0, 6, 7);
    _tile_dpbssd(1, 6, 7);
    _tile_dpbssd(2, 6, 7);
    _tile_dpbssd(3, 6, 7);
    _tile_dpbssd(4, 6, 7);
    _tile_dpbssd(5, 6, 7);
  }
  return finish();
}

float bf16(std::uint64_t iterations) {
  configure();
  for (std::uint64_t n = 0; n < iterations; ++n) {
    _tile_dpbf16ps(0, 6, 7);
    _tile_dpbf16ps(1, 6, 7);
    _tile_dpbf16ps(2, 6, 7);
    _tile_dpbf16ps(3, 6, 7);
    _tile_dpbf16ps(4, 6, 7);
    _tile_dpbf16ps(5, 6, 7);
  }
  return finish();
}

}  // namespace

const Loop int8_amx = {2.0 * 16 * 16 * 64 * kChains, int8};
const Loop bf16_amx = {2.0 * 16 * 16 * 32 * kChains, bf16};

}  // namespace nf::kernels::probe_peak

#endif  // __x86_64__
