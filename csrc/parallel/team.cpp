#include "parallel/team.h"

#include <sched.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>

#include "parallel/per_process.h"

namespace nf::parallel {
namespace {

// How long a helper looks for the next job before it sleeps. Between the calls of a loop stand some 50 us of tokenization and Python.
constexpr std::chrono::microseconds kSpin{300};
// Looks at a barrier before the processor is given up: some 50 us. Cores are shared with strangers, so that a member is often some microseconds late;
// 5,000 looks (2 us) took such a member for one without a processor.
constexpr int kLooks = 100000;
// The same once members of a job have given up several times: there are fewer processors than members, and looking only holds the others up.
constexpr int kFewLooks = 2000, kLate = 2;

// Between two looks at a value that another thread will change. Not `pause`: under a hypervisor, loops of it end in an exit of several
// microseconds (Intel SDM volume 3, PAUSE-loop exiting), more than the wait itself.
inline void relax() {
  __asm__ volatile("" ::: "memory");
}

constexpr std::uint64_t kMembersUnit = 256;

class Team {
 public:
  bool run(int members, const std::function<void(int)>& body) {
    if (taken_.exchange(true, std::memory_order_acquire)) return false;
    if (!grow(members - 1)) {
      taken_.store(false, std::memory_order_release);
      return false;
    }
    body_.store(&body, std::memory_order_relaxed);
    left_.store(members - 1, std::memory_order_relaxed);
    const std::uint64_t number = job_.load(std::memory_order_relaxed) / kMembersUnit + 1;
    job_.store(number * kMembersUnit + static_cast<std::uint64_t>(members), std::memory_order_seq_cst);
    if (asleep_.load(std::memory_order_seq_cst) > 0) {
      const std::lock_guard<std::mutex> lock(mutex_);
      wake_.notify_all();
    }
    body(0);
    for (int looks = 0; left_.load(std::memory_order_acquire) > 0;) {
      relax();
      if (++looks >= kLooks) sched_yield();
    }
    taken_.store(false, std::memory_order_release);
    return true;
  }

 private:
  bool grow(int wanted) {
    while (helpers_ < wanted) {
      const int rank = helpers_ + 1;
      const std::uint64_t seen = job_.load(std::memory_order_relaxed);
      try {
        std::thread([this, rank, seen] { loop(rank, seen); }).detach();  // as the pool's: never waited for
      } catch (const std::system_error&) {
        return false;
      }
      ++helpers_;
    }
    return true;
  }

  void loop(int rank, std::uint64_t seen) {
    for (;;) {
      seen = next_job(seen);
      if (static_cast<std::uint64_t>(rank) >= seen % kMembersUnit) continue;  // not of this job; the caller does not wait for it
      (*body_.load(std::memory_order_relaxed))(rank);
      left_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::uint64_t next_job(std::uint64_t seen) {
    const auto until = std::chrono::steady_clock::now() + kSpin;
    for (int looks = 0;; ++looks) {
      const std::uint64_t job = job_.load(std::memory_order_acquire);
      if (job != seen) return job;
      relax();
      if (looks % 256 == 255 && std::chrono::steady_clock::now() > until) break;
    }
    std::unique_lock<std::mutex> lock(mutex_);
    asleep_.fetch_add(1, std::memory_order_seq_cst);
    wake_.wait(lock, [&] { return job_.load(std::memory_order_seq_cst) != seen; });
    asleep_.fetch_sub(1, std::memory_order_relaxed);
    return job_.load(std::memory_order_acquire);
  }

  std::atomic<bool> taken_{false};
  std::atomic<const std::function<void(int)>*> body_{nullptr};
  alignas(64) std::atomic<std::uint64_t> job_{0};  // number * kMembersUnit + members, in one word: a late helper must not mix two jobs
  alignas(64) std::atomic<int> left_{0};
  std::atomic<int> asleep_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  int helpers_ = 0;  // under taken_
};

}  // namespace

void Barrier::wait() {
  const unsigned phase = phase_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == members_) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_release);
    return;
  }
  const int most = given_up_.load(std::memory_order_relaxed) <= kLate ? kLooks : kFewLooks;
  for (int looks = 0; phase_.load(std::memory_order_acquire) == phase;) {
    relax();
    if (++looks < most) continue;
    if (looks == most) given_up_.fetch_add(1, std::memory_order_relaxed);
    sched_yield();
  }
}

bool run_team(int members, const std::function<void(int rank)>& body) {
  if (members < 2 || members > kMaxTeam) return false;
  return of_this_process<Team>().run(members, body);
}

}  // namespace nf::parallel
