#include "kernels/scan_i8/contract.h"

namespace nf::kernels {
namespace {

const char* target() { return "scalar"; }

// The products of one query with the sixteen rows of a block.
void products(const int16_t* query, const int8_t* block, size_t groups, int32_t* out) {
  for (size_t row = 0; row < kScanBlockRows; ++row) out[row] = 0;
  for (size_t g = 0; g < groups; ++g) {
    const int8_t* const codes = block + g * 4 * kScanBlockRows;
    for (size_t row = 0; row < kScanBlockRows; ++row) {
      for (size_t i = 0; i < 4; ++i) out[row] += static_cast<int32_t>(query[4 * g + i]) * codes[4 * row + i];
    }
  }
}

size_t scan(const ScanI8Queries* queries, const ScanI8Rows* rows, ScanI8Hit* hits) {
  size_t found = 0;
  int32_t product[kScanBlockRows];
  for (size_t b = 0; b < rows->blocks; ++b) {
    for (size_t a = 0; a < queries->count; ++a) {
      const ScanI8Query& query = queries->each[a];
      products(queries->wide + a * queries->stride, rows->codes + b * rows->groups * 4 * kScanBlockRows, rows->groups, product);
      for (size_t i = 0; i < kScanBlockRows; ++i) {
        const size_t row = b * kScanBlockRows + i;
        const float score = query.factor * (rows->scale[row] * static_cast<float>(product[i]));
        if (score + (query.slack * rows->error[row] + query.add[row]) >= query.cut) {
          hits[found++] = ScanI8Hit{static_cast<uint32_t>(a), static_cast<uint32_t>(row), product[i]};
        }
      }
    }
  }
  return found;
}

}  // namespace

const ScanI8 scan_i8_scalar = {scan, target, kWideCodes};

}  // namespace nf::kernels
