// The scans that leave most rows out without reading them: by int8 codes (for certain), by signs (with the probability asked for).
#pragma once

#include <cstddef>
#include <vector>

#include "score/collector.h"
#include "score/task.h"

namespace nf::score {

// Scans tiles from `t` on (before `end`) by their codes for queries begin..begin + nq - 1, whose candidates go to `best`. Returns how many
// tiles that were, 0 where codes are of no use there.
std::size_t scanned_by_codes(const Task& task, std::size_t begin, std::size_t nq, std::size_t t, std::size_t end, Scratch& scratch, Collector* best,
                             const std::vector<ExactScore>& exact);

// The same for one tile, tile number `t`, by its signs. True where it was scanned.
bool scanned_by_signs(const Task& task, std::size_t begin, std::size_t nq, const Tile& tile, std::size_t t, Scratch& scratch, Collector* best,
                   const std::vector<ExactScore>& exact);

}  // namespace nf::score
