// The step of a walk over the kept nodes alone: of a node's neighbours those that are kept, and of the others' neighbours the kept ones (Patel and
// others, "ACORN", SIGMOD 2024, arXiv 2403.04871, section 6.2). Where hardly any are near, the others are ways on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "graph/request.h"

namespace nf::graph {

// Kept nodes around a node below which a walk goes on over the others as well (docs/log.md: with 4 a walk needs twice the candidates).
constexpr std::size_t kFewKept = 16;

struct Hopped {
  std::size_t fresh = 0;             // nodes to measure
  std::size_t asked = 0, kept = 0;   // neighbours of either kind, and how many of them are kept
};

// Fills `fresh`, which has room for capacity * (capacity + 1) nodes. `links(node, visit)` calls visit(neighbour) for each, `see(node)` is true the
// first time, `fetch(node)` asks memory for a node's links. `passed` is room.
template <class Links, class See, class Fetch>
Hopped hop_from(std::uint32_t node, const Keep& keep, const Links& links, const See& see, const Fetch& fetch, std::vector<std::uint32_t>& passed, std::uint32_t* fresh) {
  Hopped found;
  passed.clear();
  links(node, [&](std::uint32_t near) {
    const bool kept = keep(near);
    ++found.asked;
    found.kept += kept ? 1 : 0;
    if (!see(near)) return;
    if (kept) {
      fresh[found.fresh++] = near;
    } else {
      passed.push_back(near);
      fetch(near);
    }
  });
  for (const std::uint32_t each : passed) {
    links(each, [&](std::uint32_t far) {
      ++found.asked;
      if (!keep(far)) return;
      ++found.kept;
      fresh[found.fresh] = far;
      found.fresh += see(far) ? 1 : 0;
    });
  }
  if (found.fresh < kFewKept) {
    for (const std::uint32_t each : passed) fresh[found.fresh++] = each;
  }
  return found;
}

}  // namespace nf::graph
