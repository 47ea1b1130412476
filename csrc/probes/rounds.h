// Several threads that start each round together and count what they do until its time is over.
#pragma once

#include <functional>

namespace nf::probes {

// A step does a piece of work of at most some milliseconds and returns how many units it did.
using Step = std::function<double()>;
// Called once in each thread, before the first round: memory is touched by the thread that will use it.
using MakeStep = std::function<Step(int thread)>;

// Units per second in the best round, summed over the threads. An exception in a thread is rethrown here after all have ended.
double best_rate(int threads, double seconds, const MakeStep& make);

}  // namespace nf::probes
