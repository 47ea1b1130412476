#include "probes/rounds.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "probes/probes.h"

namespace nf::probes {
namespace {

using Clock = std::chrono::steady_clock;

class Barrier {
 public:
  explicit Barrier(int threads) : threads_(threads) {}

  void wait() {
    std::unique_lock lock(mutex_);
    const int phase = phase_;
    if (++waiting_ == threads_) {
      waiting_ = 0;
      ++phase_;
      all_here_.notify_all();
    } else {
      all_here_.wait(lock, [&] { return phase_ != phase; });
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable all_here_;
  int threads_;
  int waiting_ = 0;
  int phase_ = 0;
};

double rate_of_round(const Step& step, double seconds) {
  double units = 0;
  const auto start = Clock::now();
  double passed = 0;
  do {
    units += step();
    passed = std::chrono::duration<double>(Clock::now() - start).count();
  } while (passed < seconds);
  return units / passed;
}

}  // namespace

double best_rate(int threads, double seconds, const MakeStep& make) {
  const auto count = static_cast<std::size_t>(threads);
  std::vector<std::vector<double>> rates(count, std::vector<double>(kRounds, 0.0));
  std::vector<std::exception_ptr> errors(count);
  Barrier barrier(threads);
  auto work = [&](std::size_t t) {
    Step step;
    try {
      step = make(static_cast<int>(t));
    } catch (...) {
      errors[t] = std::current_exception();
    }
    for (int round = 0; round < kRounds; ++round) {
      barrier.wait();
      if (step) rates[t][static_cast<std::size_t>(round)] = rate_of_round(step, seconds / kRounds);
    }
  };
  std::vector<std::thread> others;
  others.reserve(count);
  for (std::size_t t = 1; t < count; ++t) others.emplace_back(work, t);
  work(0);
  for (auto& thread : others) thread.join();
  for (const auto& error : errors) {
    if (error) std::rethrow_exception(error);
  }
  double best = 0;
  for (std::size_t round = 0; round < kRounds; ++round) {
    double sum = 0;
    for (const auto& of_thread : rates) sum += of_thread[round];
    best = std::max(best, sum);
  }
  return best;
}

}  // namespace nf::probes
