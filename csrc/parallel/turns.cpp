#include "parallel/turns.h"

#include <sched.h>

#include "parallel/per_process.h"
#include "parallel/pool.h"

namespace nf::parallel {
namespace {

// NEARFIELD_THREADS says how many threads one call may use, not how many callers a process may have.
struct OfProcess {
  Turns turns{usable_cores()};
};

}  // namespace

void Turns::take() {
  std::unique_lock<std::mutex> lock(mutex_);
  if (free_ > 0) {  // then nobody waits
    --free_;
    return;
  }
  Waiter me;
  (first_ == nullptr ? first_ : last_->next) = &me;
  last_ = &me;
  me.called.wait(lock, [&me] { return me.mine; });
  lock.unlock();
  // Those who have had their turn are on their way to ask for the next one; they need a processor for microseconds, and without this get it
  // after a slice of the job that begins here: four callers' 95th percentile was 5.3 ms, and is 2.5.
  sched_yield();
}

void Turns::leave() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (first_ == nullptr) {
    ++free_;
    return;
  }
  Waiter* const next = first_;
  first_ = next->next;
  next->mine = true;
  next->called.notify_one();  // under the lock: the waiter's memory is its stack
}

Turn::Turn() : turns_(of_this_process<OfProcess>().turns) { turns_.take(); }

}  // namespace nf::parallel
