// Takes narrow codes, as the targets with byte products do, so that their way through the scorer is tested on every machine.
#include "kernels/scan_i8/contract.h"

namespace nf::kernels {
namespace {

const char* target() { return "scalar"; }

// The products of one query with the sixteen rows of a block.
void products(const int8_t* query, const int8_t* block, size_t groups, int32_t* out) {
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
  int32_t product[kScanBlockRows], low[kScanBlockRows];
  for (size_t b = 0; b < rows->blocks; ++b) {
    const int8_t* const block = rows->codes + b * rows->groups * 4 * kScanBlockRows;
    for (size_t a = 0; a < queries->count; ++a) {
      const ScanI8Query& query = queries->each[a];
      bool reached = false;  // by some row of the block: then `low` holds the second products
      products(queries->narrow + a * queries->stride, block, rows->groups, product);
      for (size_t i = 0; i < kScanBlockRows; ++i) {
        const size_t row = b * kScanBlockRows + i;
        const float beside = query.slack * rows->error[row] + query.add[row], scale = query.factor * rows->scale[row];
        if (!(scale * static_cast<float>(product[i]) + beside >= query.cut)) continue;
        if (!reached) products(queries->low + a * queries->stride, block, rows->groups, low);
        reached = true;
        const float both = static_cast<float>(product[i]) + static_cast<float>(low[i]) / kLowSteps;
        if (scale * both + beside >= query.fine_cut) hits[found++] = ScanI8Hit{static_cast<uint32_t>(a), static_cast<uint32_t>(row), product[i], low[i]};
      }
    }
  }
  return found;
}

}  // namespace

const ScanI8 scan_i8_scalar = {scan, target, kNarrowCodes};

}  // namespace nf::kernels
