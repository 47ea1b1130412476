// A few threads that work on one short job in step: for jobs of some 100 us, which waking a sleeping thread would double.
//
// Beside the caller a team has helpers that spin for a moment after each job and then sleep, so that a run of calls finds them awake and an
// idle process uses no time. There is one team; a caller that finds it taken works alone. After fork the child gets a fresh team.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>

namespace nf::parallel {

constexpr int kMaxTeam = 8;

// Where all members of a team wait for each other. Spins, since members are a few microseconds apart; gives up the processor after a while,
// since there may be fewer processors than members.
class Barrier {
 public:
  explicit Barrier(int members) : members_(members) {}
  void wait();

  // How often a member waited so long that it gave its processor up: many times a job means that there are fewer processors than members.
  int given_up() const { return given_up_.load(std::memory_order_relaxed); }

 private:
  const int members_;
  std::atomic<int> given_up_{0};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<unsigned> phase_{0};
};

// Calls body(rank) for ranks 0 to members - 1, each on a thread of its own, rank 0 on the caller's, and returns when all are done. `body`
// must not throw. False, with nothing called, where the team is taken or helpers cannot be started: the caller does the work alone.
bool run_team(int members, const std::function<void(int rank)>& body);

}  // namespace nf::parallel
