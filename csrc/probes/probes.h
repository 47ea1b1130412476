// What this machine can do at most: the ceilings that benchmarks are compared with.
//
// Every probe runs `threads` threads for about `seconds` in total, in kRounds rounds that all threads begin together, and reports the best
// round: a ceiling is what the machine reaches when nothing disturbs it.
#pragma once

#include <cstddef>
#include <map>
#include <string>

namespace nf::probes {

constexpr int kRounds = 5;

// Operations per second on registers, all threads together, by target; only the targets that CPU and operating system support.
// A multiply-add counts as two operations.
std::map<std::string, double> peak_f32(int threads, double seconds);
std::map<std::string, double> peak_int8(int threads, double seconds);
std::map<std::string, double> peak_bf16(int threads, double seconds);

// Bytes per second read, all threads together; each thread reads its own slice of a working set of `bytes`, again and again.
double read_bandwidth(std::size_t bytes, int threads, double seconds);

// Nanoseconds for one load that depends on the previous one, over a random cycle through all cache lines of the working set; with several
// threads each follows a cycle through its own slice, and the result is the mean over threads.
double line_latency(std::size_t bytes, int threads, double seconds);

}  // namespace nf::probes
