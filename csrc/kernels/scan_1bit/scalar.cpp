#include "kernels/scan_1bit/contract.h"

namespace nf::kernels {
namespace {

const char* target() { return "scalar"; }

// The sums of one query for the rows of a block.
void sum_entries(const uint8_t* tables, const uint8_t* block, size_t groups, uint32_t* out) {
  for (size_t row = 0; row < kSignBlockRows; ++row) out[row] = 0;
  for (size_t g = 0; g < groups; ++g, tables += kSignGroupBytes, block += kSignGroupBytes) {
    for (size_t j = 0; j < kSignGroupBytes; ++j) {
      out[j] += tables[block[j] & 15];
      out[kSignGroupBytes + j] += tables[block[j] >> 4];
    }
  }
}

size_t scan(const Scan1BitQuery* queries, size_t nq, const Scan1BitRows* rows, Scan1BitHit* hits) {
  size_t found = 0;
  uint32_t sums[kSignBlockRows];
  for (size_t b = 0; b < rows->blocks; ++b) {
    for (size_t a = 0; a < nq; ++a) {
      const Scan1BitQuery& query = queries[a];
      sum_entries(query.tables, rows->codes + b * rows->groups * kSignGroupBytes, rows->groups, sums);
      for (size_t i = 0; i < kSignBlockRows; ++i) {
        const size_t row = b * kSignBlockRows + i;
        const float estimate = rows->factor[row] * (query.step * static_cast<float>(sums[i]) + query.shift);
        if (estimate + (query.slack * rows->error[row] + query.add[row]) >= query.cut) {
          hits[found++] = Scan1BitHit{static_cast<uint32_t>(a), static_cast<uint32_t>(row), sums[i]};
        }
      }
    }
  }
  return found;
}

}  // namespace

const Scan1Bit scan_1bit_scalar = {scan, target};

}  // namespace nf::kernels
