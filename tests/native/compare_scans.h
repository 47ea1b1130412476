// A scan kernel against the scalar one, for the programs that run kernels of other machines.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kernels/scan_i8/contract.h"

using namespace nf::kernels;

namespace {

int failures = 0;

void expect(bool good, const char* what, size_t dim) {
  if (good) return;
  std::printf("%s differs at dim %zu\n", what, dim);
  ++failures;
}

template <typename T>
std::vector<T> draw(size_t count) {
  std::vector<T> values(count);
  for (T& value : values) value = sizeof(T) == 1 ? static_cast<T>(std::rand() % 256 - 128) : static_cast<T>(std::rand() % 2001 - 1000) / static_cast<T>(512);
  return values;
}

// Scales and cuts are multiples of small powers of two, so every test is exact on both sides and the hits are the same. Every array ends where
// the kernel may read last: the sanitizer sees a step beyond.
void compare_scans(const ScanI8& kernel, size_t groups, size_t nq, size_t blocks) {
  const size_t places = blocks * kScanBlockRows, stride = (4 * groups + kScanStride - 1) / kScanStride * kScanStride;
  std::vector<int8_t> narrow(nq * stride, 0);
  std::vector<ScanI8Query> queries(nq);
  std::vector<int8_t> rows = draw<int8_t>(places * groups * 4);
  std::vector<float> scale, error, add;
  for (size_t j = 0; j < places; ++j) {
    scale.push_back(static_cast<float>(1 + j % 3));
    error.push_back(static_cast<float>(j % 7));
    add.push_back(static_cast<float>(j % 5) - 2.0f);
  }
  for (size_t i = 0; i < nq; ++i) {
    queries[i] = {1.0f, 2.0f, static_cast<float>(i) * 1000.0f, 0, add.data()};
    for (size_t g = 0; g < groups * 4; ++g) {
      narrow[i * stride + g] = static_cast<int8_t>(i == 0 ? 127 : std::rand() % 255 - 127);
      queries[i].code_sum += narrow[i * stride + g];
    }
  }
  for (size_t g = 0; g < groups; ++g) {  // the first row holds the least code everywhere
    for (size_t i = 0; i < 4; ++i) rows[g * 4 * kScanBlockRows + i] = -128;
  }
  const std::vector<int16_t> wide(narrow.begin(), narrow.end());
  const ScanI8Queries coded{wide.data(), narrow.data(), stride, nq, queries.data()};
  const ScanI8Rows given{rows.data(), blocks, groups, scale.data(), error.data()};
  std::vector<ScanI8Hit> got(nq * places), want(nq * places);
  got.resize(kernel.scan(&coded, &given, got.data()));
  want.resize(scan_i8_scalar.scan(&coded, &given, want.data()));
  const auto key = [places](const ScanI8Hit& hit) { return hit.query * places + hit.row; };
  const auto before = [&](const ScanI8Hit& a, const ScanI8Hit& b) { return key(a) < key(b); };
  std::sort(got.begin(), got.end(), before);
  std::sort(want.begin(), want.end(), before);
  bool same = got.size() == want.size() && !want.empty() && want.size() < nq * places;
  for (size_t h = 0; same && h < want.size(); ++h) same = key(got[h]) == key(want[h]) && got[h].product == want[h].product;
  expect(same, kernel.target(), groups * 4);
}

// Query counts around the kernels' groups, odd numbers of blocks, dimensions around the 64 of a tile.
void compare_scans(const ScanI8& kernel) {
  for (const size_t groups : {1, 5, 16, 17, 100}) {
    for (const size_t nq : {1, 2, 6, 7, 12, 13, 16, 17, 33, 50}) {
      for (const size_t blocks : {1, 2, 3, 8}) compare_scans(kernel, groups, nq, blocks);
    }
  }
}

}  // namespace
