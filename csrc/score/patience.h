// When to give up a scan whose codes exclude too little.
#pragma once

#include <algorithm>
#include <cstddef>

namespace nf::score {

// Where codes let more than one pair in kCrowd through for kPatience tiles running, they exclude too little to pay: some tiles are scanned
// by the next finer ones (one bit, int8, float32), then the codes get another chance. Few tiles at first, for at the beginning of a scan there
// is no threshold yet that could exclude anything; twice as many each time.
constexpr std::size_t kCrowd = 8, kPatience = 4, kFirstRespite = 8, kLongestRespite = 64;

class Patience {
 public:
  bool resting() { return left_ != 0 && left_-- != 0; }

  void learn(std::size_t found, std::size_t pairs) {
    crowded_ = found * kCrowd > pairs ? crowded_ + 1 : 0;
    if (crowded_ != kPatience) return;
    crowded_ = 0;
    left_ = respite_;
    respite_ = std::min(2 * respite_, kLongestRespite);
  }

 private:
  std::size_t crowded_ = 0, left_ = 0, respite_ = kFirstRespite;  // tiles: crowded in a row, left to rest, to rest next time
};

}  // namespace nf::score
