#include "kernels/dot_f32/contract.h"

#if defined(__x86_64__)
#include "kernels/lanes_avx512.h"
#include "kernels/tiles_f32.h"

namespace nf::kernels {
namespace {

const char* target() { return "avx512"; }

struct Step {
  static inline __m512 add(__m512 q, __m512 r, __m512 sum) { return _mm512_fmadd_ps(q, r, sum); }
};

// Four queries by four rows: sixteen sums of thirty-two registers, eight loads for sixteen fused operations.
using Tiles = TilesF32<LanesAvx512, Step, 4>;

}  // namespace

const DotF32 dot_f32_avx512 = {Tiles::pair, Tiles::gather, Tiles::block, target};

}  // namespace nf::kernels

#endif
