// A small thread pool. No OpenMP: its runtime clashes with those of torch, faiss and onnxruntime in one process.
//
// Workers sleep on a condition variable when idle. Several callers may run jobs at once; each caller works on its own job too, so
// a busy pool never blocks it. After fork the child gets a fresh pool at first use. Called from inside a job, parallel_for runs inline.
#pragma once

#include <cstddef>
#include <functional>

#include "base/status.h"

namespace nf::parallel {

// The processors that this process may run on, 1 or more.
int usable_cores();

// How many threads a call that asks for `requested` gets: all cores this process may use when `requested` <= 0, and never more
// than NEARFIELD_THREADS where that is set. Throws InputError when NEARFIELD_THREADS is not a whole number >= 1.
int resolve_threads(int requested);

// Calls body(begin, end, part) on `parts` = min(threads, items) contiguous, near-equal ranges of [0, items), each exactly once, and returns
// when all are done. The ranges depend on `items` and `threads` alone. An exception inside body becomes the returned Status (that of the
// lowest part that failed).
Status parallel_for(std::size_t items, int threads, const std::function<void(std::size_t begin, std::size_t end, std::size_t part)>& body);

}  // namespace nf::parallel
