// Runs kernel files of targets that this machine may lack through SIMDe (plain C for every intrinsic) and amx.h against the scalar ones.
// Built and run by test_emulated_targets.py.
#include <cmath>
#include <cstdio>
#include <vector>

#include "compare_halves.h"
#include "compare_scans.h"
#include "kernels/dot_f32/contract.h"
#include "kernels/dot_i8/contract.h"
#include "kernels/l2sqr_f32/contract.h"
#include "kernels/scan_1bit/contract.h"

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

// Small whole numbers and powers of two, so both sides' float tests are exact.
void compare_sign_scans(size_t groups, size_t nq, size_t blocks) {
  const size_t places = blocks * kSignBlockRows;
  std::vector<uint8_t> tables(nq * groups * kSignGroupBytes), codes(blocks * groups * kSignGroupBytes);
  for (uint8_t& value : tables) value = static_cast<uint8_t>(std::rand() % 256);
  for (uint8_t& value : codes) value = static_cast<uint8_t>(std::rand() % 256);
  std::vector<float> factor, error, add;
  for (size_t j = 0; j < places; ++j) {
    factor.push_back(static_cast<float>(1 + j % 3));
    error.push_back(static_cast<float>(j % 7));
    add.push_back(static_cast<float>(j % 5) - 2.0f);
  }
  std::vector<Scan1BitQuery> queries;
  const float middle = 127.5f * static_cast<float>(groups);
  for (size_t i = 0; i < nq; ++i) queries.push_back({tables.data() + i * groups * kSignGroupBytes, 1.0f, -middle, 2.0f, static_cast<float>(i), add.data()});
  const Scan1BitRows given{codes.data(), blocks, groups, factor.data(), error.data()};
  std::vector<Scan1BitHit> got(nq * places), want(nq * places);
  got.resize(scan_1bit_avx512.scan(queries.data(), nq, &given, got.data()));
  want.resize(scan_1bit_scalar.scan(queries.data(), nq, &given, want.data()));
  const auto key = [places](const Scan1BitHit& hit) { return hit.query * places + hit.row; };
  const auto before = [&](const Scan1BitHit& a, const Scan1BitHit& b) { return key(a) < key(b); };
  std::sort(got.begin(), got.end(), before);
  std::sort(want.begin(), want.end(), before);
  bool same = got.size() == want.size() && !want.empty() && want.size() < nq * places;
  for (size_t h = 0; same && h < want.size(); ++h) same = key(got[h]) == key(want[h]) && got[h].sum == want[h].sum;
  expect(same, "scan_1bit", groups * kSignGroupDims);
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
  for (const size_t groups : {4, 12, 96, 256}) {
    for (const size_t nq : {1, 2, 5, 6, 7, 13}) compare_sign_scans(groups, nq, 3);
  }
  std::printf("%s %s %s %s", dot_f32_avx512.target(), l2sqr_f32_avx512.target(), dot_i8_avx512.target(), scan_1bit_avx512.target());
  for (const ScanI8* kernel : {&scan_i8_scalar, &scan_i8_avxvnni, &scan_i8_avx512, &scan_i8_avx512vnni, &scan_i8_amx}) {
    compare_scans(*kernel);
    std::printf(" %s", kernel->target());
  }
  for (const DotBf16* kernel : {&dot_bf16_scalar, &dot_bf16_amx}) {
    compare_halves(*kernel);
    std::printf(" %s", kernel->target());
  }
  std::printf("\n");
  return failures == 0 ? 0 : 1;
}
