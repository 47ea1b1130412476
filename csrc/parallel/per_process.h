// One object of a kind for each process.
//
// After fork only the calling thread lives on, and locks of the parent's object may be held by threads that are gone: the child leaves the old
// object where it is and makes its own at first use. Never destroyed, so that a process that exits waits for nobody.
#pragma once

#include <unistd.h>

#include <atomic>

namespace nf::parallel {

template <typename T>
T& of_this_process() {
  struct Home {
    pid_t pid;
    T object;
    explicit Home(pid_t owner) : pid(owner) {}
  };
  static std::atomic<Home*> home{nullptr};
  const pid_t pid = getpid();
  Home* current = home.load(std::memory_order_acquire);
  while (current == nullptr || current->pid != pid) {
    Home* fresh = new Home(pid);
    if (home.compare_exchange_strong(current, fresh)) return fresh->object;
    delete fresh;
  }
  return current->object;
}

}  // namespace nf::parallel
