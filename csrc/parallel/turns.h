// Short jobs of many callers, first come first served.
//
// Eight threads that compute for a millisecond each on two processors are served by the system in slices of several milliseconds: a call that is
// running finishes and its caller's next ones too, while others wait for 20. Here a caller that finds every processor taken sleeps until those
// before it are done, so that all wait alike.
#pragma once

#include <condition_variable>
#include <mutex>

namespace nf::parallel {

class Turns {
 public:
  // At most `places` callers at a time, 1 or more.
  explicit Turns(int places) : free_(places) {}
  Turns(const Turns&) = delete;
  Turns& operator=(const Turns&) = delete;

  // Returns when it is the caller's turn; leave() ends it.
  void take();
  void leave();

 private:
  struct Waiter {
    std::condition_variable called;
    bool mine = false;
    Waiter* next = nullptr;
  };
  std::mutex mutex_;
  int free_;
  Waiter* first_ = nullptr;
  Waiter* last_ = nullptr;
};

// A turn among those of this process, which has as many places as processors; held as long as the object lives. One who holds a turn must not take
// another, nor wait for somebody who does.
class Turn {
 public:
  Turn();
  ~Turn() { turns_.leave(); }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  Turns& turns_;
};

}  // namespace nf::parallel
