// Runs kernel files of targets that this machine may lack through SIMDe (plain C for every intrinsic) and amx.h against the scalar ones.
// Built and run by test_emulated_targets.py.
#include <cmath>
#include <cstdio>
#include <vector>

#include "compare_scans.h"
#include "kernels/dot_f32/contract.h"
#include "kernels/dot_i8/contract.h"
#include "kernels/l2sqr_f32/contract.h"

namespace {

// Every form of a kernel against the scalar block; `bound` is the largest difference allowed.
template <typename Kernel, typename In, typename Out>
void compare(const Kernel& kernel, const Kernel& scalar, const char* name, size_t dim, double bound, In, Out) {
  const size_t nq = 9, nr = 21;
  const std::vector<In> q = draw<In>(nq * dim + 1), r = draw<In>(nr * dim + 1);
  std::vector<Out> got(nq * nr), want(nq * nr), row(nr);
  std::vector<const In*> rows;
  for (size_t j = 0; j < nr; ++j) rows.push_back(r.data() + 1 + j * dim);
  scalar.block(q.data() + 1, dim, nq, r.data() + 1, dim, nr, dim, want.data(), nr);
  kernel.block(q.data() + 1, dim, nq, r.data() + 1, dim, nr, dim, got.data(), nr);
  for (size_t i = 0; i < nq; ++i) {
    kernel.gather(q.data() + 1 + i * dim, rows.data(), nr, dim, row.data());
    for (size_t j = 0; j < nr; ++j) {
      expect(std::fabs(static_cast<double>(got[i * nr + j]) - static_cast<double>(want[i * nr + j])) <= bound, name, dim);
      expect(row[j] == got[i * nr + j], "gather", dim);
      expect(std::fabs(static_cast<double>(kernel.pair(q.data() + 1 + i * dim, rows[j], dim)) - static_cast<double>(want[i * nr + j])) <= bound, "pair", dim);
    }
  }
}

}  // namespace

int main() {
  for (const size_t dim : {0, 1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 384, 385}) {
    // Terms are at most 16 in size: two float32 sums differ by at most 2 (dim + 4) * 2^-24 * 16 dim.
    const double bound = 2.0 * (dim + 4.0) * 0x1p-24 * 16.0 * dim;
    compare(dot_f32_avx512, dot_f32_scalar, "dot_f32", dim, bound, float{}, float{});
    compare(l2sqr_f32_avx512, l2sqr_f32_scalar, "l2sqr_f32", dim, bound, float{}, float{});
    compare(dot_i8_avx512, dot_i8_scalar, "dot_i8", dim, 0.0, int8_t{}, int32_t{});
  }
  std::printf("%s %s %s", dot_f32_avx512.target(), l2sqr_f32_avx512.target(), dot_i8_avx512.target());
  for (const ScanI8* kernel : {&scan_i8_scalar, &scan_i8_avxvnni, &scan_i8_avx512, &scan_i8_avx512vnni, &scan_i8_amx}) {
    compare_scans(*kernel);
    std::printf(" %s", kernel->target());
  }
  std::printf("\n");
  return failures == 0 ? 0 : 1;
}
