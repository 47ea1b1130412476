// The pool: every item once, nested calls, failures as Status, many callers at once, a child after fork; turns.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "harness.h"
#include "oracle.h"
#include "parallel/pool.h"
#include "parallel/rwlock.h"
#include "parallel/turns.h"

namespace nf::test {
namespace {

using parallel::parallel_for;

void check_every_item_once(std::size_t items, int threads) {
  const Note note("items", items, "threads", threads);
  std::vector<int> times(items, 0);  // plain ints: two threads at one item would be a race
  std::vector<std::size_t> parts(static_cast<std::size_t>(std::max(1, threads)), 0);
  const Status status = parallel_for(items, threads, [&](std::size_t begin, std::size_t end, std::size_t part) {
    for (std::size_t i = begin; i < end; ++i) ++times[i];
    parts[part] = end - begin;
  });
  CHECK(status.ok());
  for (const int each : times) CHECK(each == 1);
  std::size_t most = 0, least = items;
  for (const std::size_t each : parts) {
    most = std::max(most, each);
    if (each != 0) least = std::min(least, each);
  }
  CHECK(items == 0 || most - least <= 1);
}

TEST(parallel_for_does_every_item_once) {
  for (const std::size_t items : {0, 1, 2, 3, 7, 64, 1001}) {
    for (const int threads : {-1, 0, 1, 2, 3, 8, 33}) check_every_item_once(items, threads);
  }
}

TEST(parallel_for_nests_and_serves_many_callers) {
  std::vector<std::thread> callers;
  std::atomic<int> total{0};
  for (int c = 0; c < 6; ++c) {
    callers.emplace_back([&] {
      for (int round = 0; round < (kSanitized ? 60 : 300); ++round) {
        std::vector<int> sums(5, 0);
        const Status status = parallel_for(5, 4, [&](std::size_t begin, std::size_t end, std::size_t) {
          for (std::size_t i = begin; i < end; ++i) {
            std::vector<int> inner(7, 0);
            const Status nested = parallel_for(7, 3, [&](std::size_t b, std::size_t e, std::size_t) {
              for (std::size_t j = b; j < e; ++j) inner[j] = 1;
            });
            CHECK(nested.ok());
            for (const int each : inner) sums[i] += each;
          }
        });
        CHECK(status.ok());
        for (const int sum : sums) total += sum;
      }
    });
  }
  for (std::thread& each : callers) each.join();
  CHECK(total == 6 * (kSanitized ? 60 : 300) * 35);
}

TEST(failures_become_the_status_of_the_lowest_part) {
  for (const int threads : {1, 2, 5}) {
    const Note note("threads", threads);
    const auto failing = [threads](auto fail) {
      return parallel_for(100, threads, [&](std::size_t begin, std::size_t end, std::size_t) {
        for (std::size_t i = begin; i < end; ++i) fail(i);
      });
    };
    const Status input = failing([](std::size_t i) {
      if (i % 10 == 3) throw InputError("item " + std::to_string(i));
    });
    CHECK(input.code == Code::bad_input && input.message == "item 3");
    const Status format = failing([](std::size_t i) {
      if (i == 99) throw FormatError("the last one");
    });
    CHECK(format.code == Code::bad_format && format.message == "the last one");
    CHECK(failing([](std::size_t) { throw std::bad_alloc(); }).code == Code::out_of_memory);
    CHECK(failing([](std::size_t) { throw std::logic_error("what"); }).code == Code::internal);
    CHECK_THROWS(InputError, "item 3", raise_if_bad(input));
    CHECK_THROWS(FormatError, "the last", raise_if_bad(format));
    CHECK_THROWS(std::bad_alloc, "", raise_if_bad(Status{Code::out_of_memory, ""}));
    CHECK_THROWS(std::runtime_error, "what", raise_if_bad(Status{Code::internal, "what"}));
    check_every_item_once(50, threads);  // and the pool still works
  }
}

TEST(threads_are_capped_by_the_environment) {
  unsetenv("NEARFIELD_THREADS");
  CHECK(parallel::resolve_threads(3) == 3 && parallel::resolve_threads(0) >= 1 && parallel::resolve_threads(1 << 30) <= 512);
  setenv("NEARFIELD_THREADS", "2", 1);
  CHECK(parallel::resolve_threads(3) == 2 && parallel::resolve_threads(1) == 1);
  for (const char* bad : {"0", "-1", "two", "1.5", " "}) {
    setenv("NEARFIELD_THREADS", bad, 1);
    CHECK_THROWS(InputError, "NEARFIELD_THREADS", parallel::resolve_threads(1));
  }
  unsetenv("NEARFIELD_THREADS");
}

// 0 when a child that is forked now can use the pool. ThreadSanitizer lets no forked child start threads, so the test is left out there.
int status_of_child() {
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);  // a child that hangs on a lock of the old pool ends by a signal
    std::vector<int> times(64, 0);
    const Status status = parallel_for(64, 4, [&](std::size_t begin, std::size_t end, std::size_t) {
      for (std::size_t i = begin; i < end; ++i) ++times[i];
    });
    for (const int each : times) {
      if (each != 1) _exit(2);
    }
    _exit(status.ok() ? 0 : 3);
  }
  int result = -1;
  return waitpid(child, &result, 0) == child ? result : -1;
}

TEST(a_forked_child_has_a_pool_of_its_own) {
#if defined(__SANITIZE_THREAD__)
  return;
#endif
  check_every_item_once(100, 4);
  CHECK(status_of_child() == 0);
  std::atomic<bool> stop{false};
  std::thread busy([&] {  // the pool's lock is often held while the child is made
    while (!stop) check_every_item_once(100, 4);
  });
  bool good = true;
  for (int i = 0; i < 20 && good; ++i) {  // one child that hangs says enough
    good = status_of_child() == 0;
    CHECK(good);
  }
  stop = true;
  busy.join();
  check_every_item_once(100, 4);
}

TEST(readers_and_writers_exclude_each_other) {
  parallel::RwLock lock;
  long value = 0;
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers;
  for (int r = 0; r < 4; ++r) {
    readers.emplace_back([&] {
      long last = 0;
      while (!stop) {
        lock.lock_shared();
        CHECK(value >= last);
        last = value;
        lock.unlock_shared();
      }
    });
  }
  for (int i = 0; i < 200; ++i) {
    lock.lock();
    ++value;
    lock.unlock();
  }
  stop = true;
  for (std::thread& each : readers) each.join();
  CHECK(value == 200);
}

TEST(turns_let_in_as_many_as_there_are_places) {
  for (const int places : {1, 2, 3}) {
    parallel::Turns turns(places);
    std::atomic<int> inside{0}, most{0}, done{0};
    std::vector<std::thread> callers;
    for (int c = 0; c < 6; ++c) {
      callers.emplace_back([&] {
        for (int i = 0; i < 300; ++i) {
          turns.take();
          const int now = ++inside;
          for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
          }
          if (i % 16 == 0) std::this_thread::yield();
          --inside;
          turns.leave();
          ++done;
        }
      });
    }
    for (std::thread& each : callers) each.join();
    CHECK(done == 6 * 300);
    CHECK(most <= places);
  }
}

TEST(turns_come_in_the_order_of_arrival) {
  constexpr int kCallers = 5;
  parallel::Turns turns(1);
  turns.take();
  std::vector<int> order;  // written in a turn alone
  std::vector<std::thread> callers;
  for (int c = 0; c < kCallers; ++c) {
    callers.emplace_back([&, c] {
      turns.take();
      order.push_back(c);
      turns.leave();
    });
    // Nothing says from outside that a caller waits: it is given a moment to get there before the next one starts.
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  CHECK(order.empty());
  turns.leave();
  for (std::thread& each : callers) each.join();
  for (int c = 0; c < kCallers; ++c) CHECK(order[static_cast<std::size_t>(c)] == c);
  turns.take();  // all were given back
  turns.leave();
}

TEST(a_forked_child_has_turns_of_its_own) {
#if defined(__SANITIZE_THREAD__)
  return;
#endif
  std::vector<std::unique_ptr<parallel::Turn>> taken;
  for (int i = 0; i < parallel::usable_cores(); ++i) taken.push_back(std::make_unique<parallel::Turn>());
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);  // a child that waits for its parent's turns ends by a signal
    { const parallel::Turn turn; }
    _exit(0);
  }
  int result = -1;
  CHECK(waitpid(child, &result, 0) == child);
  CHECK(result == 0);
}

}  // namespace
}  // namespace nf::test
