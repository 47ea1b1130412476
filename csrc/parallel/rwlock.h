// A readers-writer lock in which a waiting writer goes before new readers, so that steady searches cannot starve an add.
// (std::shared_mutex lets readers overtake on glibc.) Not recursive. Release Python's GIL before taking it.
#pragma once

#include <pthread.h>

namespace nf::parallel {

class RwLock {
 public:
  RwLock() { init(); }
  ~RwLock() { pthread_rwlock_destroy(&lock_); }
  RwLock(const RwLock&) = delete;
  RwLock& operator=(const RwLock&) = delete;

  void lock() { pthread_rwlock_wrlock(&lock_); }
  void unlock() { pthread_rwlock_unlock(&lock_); }
  void lock_shared() { pthread_rwlock_rdlock(&lock_); }
  void unlock_shared() { pthread_rwlock_unlock(&lock_); }

 private:
  void init() {
    pthread_rwlockattr_t attributes;
    pthread_rwlockattr_init(&attributes);
#if defined(__GLIBC__)
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
#endif
    pthread_rwlock_init(&lock_, &attributes);
    pthread_rwlockattr_destroy(&attributes);
  }

  pthread_rwlock_t lock_;
};

}  // namespace nf::parallel
