#include "kernels/scan_i8/choice.h"

#include <limits>
#include <vector>

#include "base/aligned.h"
#include "kernels/trial.h"

namespace nf::kernels {
namespace {

// A tile of the exact scorer: what stays in a second-level cache beside its queries.
constexpr size_t kDim = 384, kRows = 128, kQueries = 48, kGroups = kDim / 4;
// Query counts that leave every kernel with a group that is not full.
constexpr size_t kChecked = 37;

class Trial {
 public:
  Trial() : rows_(kRows * kDim), wide_(kQueries * kDim), narrow_(kQueries * kDim), ones_(kRows, 1.0f), each_(kQueries), hits_(kQueries * kRows) {
    Sequence draw;
    for (size_t i = 0; i < rows_.size(); ++i) rows_[i] = static_cast<std::int8_t>(draw.next() % 255 - 127);
    for (size_t i = 0; i < narrow_.size(); ++i) {
      narrow_[i] = static_cast<std::int8_t>(draw.next() % 255 - 127);
      wide_[i] = narrow_[i];
      each_[i / kDim].code_sum += narrow_[i];
    }
  }

  bool agrees(const ScanI8& kernel) {
    const size_t found = scan(kernel, kChecked, -std::numeric_limits<float>::infinity());
    if (found != kChecked * kRows) return false;
    for (size_t h = 0; h < found; ++h) {
      if (hits_[h].query >= kChecked || hits_[h].row >= kRows) return false;
      const std::int32_t exact = product(hits_[h].query, hits_[h].row);  // the low codes are the same here
      if (hits_[h].product != exact || (kernel.code_max == kNarrowCodes && hits_[h].low != exact)) return false;
    }
    return true;
  }

  double seconds(const ScanI8& kernel) {
    return best_seconds([&] { scan(kernel, kQueries, std::numeric_limits<float>::max()); });  // as most tiles are: nothing reaches the cut
  }

 private:
  size_t scan(const ScanI8& kernel, size_t queries, float cut) {
    for (ScanI8Query& query : each_) query = {1.0f, 1.0f, cut, cut, query.code_sum, query.code_sum, ones_.data()};
    const ScanI8Queries coded{wide_.data(), narrow_.data(), narrow_.data(), kDim, queries, each_.data()};
    const ScanI8Rows rows{rows_.data(), kRows / kScanBlockRows, kGroups, ones_.data(), ones_.data()};
    return kernel.scan(&coded, &rows, hits_.data());
  }

  std::int32_t product(size_t query, size_t row) const {
    const std::int8_t* const block = rows_.data() + row / kScanBlockRows * kGroups * 4 * kScanBlockRows;
    std::int32_t sum = 0;
    for (size_t i = 0; i < kDim; ++i) sum += narrow_[query * kDim + i] * block[(i / 4 * kScanBlockRows + row % kScanBlockRows) * 4 + i % 4];
    return sum;
  }

  AlignedBuffer<std::int8_t> rows_;
  AlignedBuffer<std::int16_t> wide_;
  AlignedBuffer<std::int8_t> narrow_;
  std::vector<float> ones_;
  std::vector<ScanI8Query> each_;
  std::vector<ScanI8Hit> hits_;
};

}  // namespace

const ScanI8& fastest_scan_i8(const ScanI8* const* candidates, size_t count) {
  const ScanI8* best = candidates[0];
  if (count == 1) return *best;
  Trial trial;
  double least = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < count; ++i) {
    if (!trial.agrees(*candidates[i])) continue;
    const double taken = trial.seconds(*candidates[i]);
    if (taken < least) {
      least = taken;
      best = candidates[i];
    }
  }
  return *best;
}

}  // namespace nf::kernels
