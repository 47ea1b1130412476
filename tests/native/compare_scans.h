// A scan kernel against plain loops, for the programs that run kernels of other machines.
#pragma once

#include <algorithm>
#include <cmath>
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

// The product of one row of codes with one packed row, and with the low codes.
int32_t product(const int8_t* codes, const int8_t* rows, size_t groups, size_t row) {
  const int8_t* const block = rows + row / kScanBlockRows * groups * 4 * kScanBlockRows;
  int32_t sum = 0;
  for (size_t i = 0; i < 4 * groups; ++i) sum += codes[i] * block[(i / 4 * kScanBlockRows + row % kScanBlockRows) * 4 + i % 4];
  return sum;
}

// Scales and cuts are integers, so every test on the first codes is exact; with low codes, whose step of 1 / 254 is no float, pairs within a
// hundredth of the cut may go either way. Every array ends where the kernel may read last: the sanitizer sees a step beyond.
void compare_scans(const ScanI8& kernel, size_t groups, size_t nq, size_t blocks) {
  const size_t places = blocks * kScanBlockRows, stride = (4 * groups + kScanStride - 1) / kScanStride * kScanStride;
  std::vector<int8_t> narrow(nq * stride, 0), low(nq * stride, 0), rows = draw<int8_t>(places * groups * 4);
  std::vector<ScanI8Query> queries;
  std::vector<float> scale, error, add;
  for (size_t j = 0; j < places; ++j) {
    scale.push_back(static_cast<float>(1 + j % 3));
    error.push_back(static_cast<float>(j % 7));
    add.push_back(static_cast<float>(j % 5) - 2.0f);
  }
  for (size_t i = 0; i < nq; ++i) {
    const float cut = static_cast<float>(i) * 1000.0f;
    queries.push_back({1.0f, 2.0f, cut, cut + 200.0f, 0, 0, add.data()});
    for (size_t j = i * stride; j < i * stride + groups * 4; ++j) {
      narrow[j] = static_cast<int8_t>(i == 0 ? 127 : std::rand() % 255 - 127);
      low[j] = static_cast<int8_t>(std::rand() % 255 - 127);
      queries[i].code_sum += narrow[j];
      queries[i].low_sum += low[j];
    }
  }
  for (size_t g = 0; g < groups; ++g) {  // the first row holds the least code everywhere
    for (size_t i = 0; i < 4; ++i) rows[g * 4 * kScanBlockRows + i] = -128;
  }
  const std::vector<int16_t> wide(narrow.begin(), narrow.end());
  const ScanI8Queries coded{wide.data(), narrow.data(), low.data(), stride, nq, queries.data()};
  const ScanI8Rows given{rows.data(), blocks, groups, scale.data(), error.data()};
  std::vector<ScanI8Hit> hits(nq * places);
  hits.resize(kernel.scan(&coded, &given, hits.data()));
  const auto before = [](const ScanI8Hit& a, const ScanI8Hit& b) { return a.query != b.query ? a.query < b.query : a.row < b.row; };
  std::sort(hits.begin(), hits.end(), before);
  size_t next = 0, doubtful = 0;
  bool same = !hits.empty() && hits.size() < nq * places;
  for (uint32_t i = 0; i < nq; ++i) {
    for (uint32_t j = 0; j < places; ++j) {
      const int32_t first = product(narrow.data() + i * stride, rows.data(), groups, j);
      const int32_t second = kernel.code_max == kNarrowCodes ? product(low.data() + i * stride, rows.data(), groups, j) : 0;
      const double beside = 2.0 * error[j] + add[j];
      const double fine = kernel.code_max == kNarrowCodes ? scale[j] * (first + second / 254.0) + beside - queries[i].fine_cut : 1.0;
      const bool there = next < hits.size() && hits[next].query == i && hits[next].row == j, unsure = std::fabs(fine) < 0.01;
      const bool wanted = scale[j] * first + beside >= queries[i].cut && fine > 0;
      doubtful += unsure ? 1 : 0;
      same = same && (unsure || there == wanted) && (!there || (hits[next].product == first && hits[next].low == second));
      next += there ? 1 : 0;
    }
  }
  expect(same && next == hits.size() && doubtful <= nq * places / 8, kernel.target(), groups * 4);
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
