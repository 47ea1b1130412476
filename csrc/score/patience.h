// When to give up a scan whose codes exclude too little.
#pragma once

#include <algorithm>
#include <cstddef>

namespace nf::score {

// Where codes let more than one pair in kCrowd through for kPatience scans running, they exclude too little to pay: some tiles are scanned
// by the next finer ones (one bit, int8, float32), then the codes get another chance. Few tiles at first, for at the beginning of a scan there
// is no threshold yet that could exclude anything; twice as many each time.
constexpr std::size_t kCrowd = 8, kPatience = 4, kFirstRespite = 8, kLongestRespite = 64;

class Patience {
 public:
  bool resting() { return left_ != 0 && left_-- != 0; }

  // True where the scan was crowded.
  bool learn(std::size_t found, std::size_t pairs) {
    const bool crowded = found * kCrowd > pairs;
    crowded_ = crowded ? crowded_ + 1 : 0;
    if (crowded_ == kPatience) {
      crowded_ = 0;
      left_ = respite_;
      respite_ = std::min(2 * respite_, kLongestRespite);
    }
    return crowded;
  }

 private:
  std::size_t crowded_ = 0, left_ = 0, respite_ = kFirstRespite;  // scans crowded in a row, tiles left to rest, to rest next time
};

}  // namespace nf::score
