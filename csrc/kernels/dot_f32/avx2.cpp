#include "kernels/dot_f32/contract.h"

#if defined(__x86_64__)
#include "kernels/lanes_avx2.h"
#include "kernels/tiles_f32.h"

namespace nf::kernels {
namespace {

const char* target() { return "avx2"; }

struct Step {
  static inline __m256 add(__m256 q, __m256 r, __m256 sum) { return _mm256_fmadd_ps(q, r, sum); }
};

// Three queries by four rows: twelve sums, three query registers and one row register are all sixteen.
using Tiles = TilesF32<LanesAvx2, Step, 3>;

}  // namespace

const DotF32 dot_f32_avx2 = {Tiles::pair, Tiles::gather, Tiles::block, target};

}  // namespace nf::kernels

#endif
