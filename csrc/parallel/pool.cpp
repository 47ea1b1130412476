#include "parallel/pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "parallel/per_process.h"

namespace nf::parallel {
namespace {

// More threads than this helps no machine we know and turns a typing error into thousands of stacks.
constexpr int kMaxThreads = 512;

struct Job {
  const std::function<void(std::size_t)>* run_part = nullptr;
  std::size_t parts = 0;
  std::size_t next = 0;  // under Pool::mutex_
  std::size_t done = 0;  // under Pool::mutex_
  std::condition_variable finished;
};

thread_local bool inside_job = false;

class Pool {
 public:
  // Runs parts 0..parts-1, each exactly once, on up to `parts` threads including this one.
  void run(std::size_t parts, const std::function<void(std::size_t)>& run_part) {
    auto job = std::make_shared<Job>();
    job->run_part = &run_part;
    job->parts = parts;
    std::unique_lock<std::mutex> lock(mutex_);
    grow(parts - 1);
    queue_.push_back(job);
    if (parts > 2) {
      work_.notify_all();
    } else {
      work_.notify_one();
    }
    inside_job = true;
    while (take(*job, lock)) {
    }
    inside_job = false;
    job->finished.wait(lock, [&] { return job->done == job->parts; });
  }

 private:
  // Takes one part of the job and runs it without the lock; false when none is left to take.
  bool take(Job& job, std::unique_lock<std::mutex>& lock) {
    if (job.next == job.parts) return false;
    const std::size_t part = job.next++;
    if (job.next == job.parts) drop(job);
    lock.unlock();
    (*job.run_part)(part);
    lock.lock();
    if (++job.done == job.parts) job.finished.notify_all();
    return true;
  }

  void drop(const Job& job) {
    queue_.erase(std::find_if(queue_.begin(), queue_.end(), [&](const std::shared_ptr<Job>& each) { return each.get() == &job; }));
  }

  void grow(std::size_t wanted) {
    while (workers_ < std::min<std::size_t>(wanted, kMaxThreads)) {
      try {
        // Detached: a process that exits does not wait for sleeping workers, and the pool is never destroyed.
        std::thread([this] { loop(); }).detach();
      } catch (const std::system_error&) {
        return;  // fewer workers do the same parts
      }
      ++workers_;
    }
  }

  void loop() {
    inside_job = true;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      work_.wait(lock, [&] { return !queue_.empty(); });
      const std::shared_ptr<Job> job = queue_.front();
      while (take(*job, lock)) {
      }
    }
  }

  std::mutex mutex_;
  std::condition_variable work_;
  std::deque<std::shared_ptr<Job>> queue_;  // jobs with parts left to take
  std::size_t workers_ = 0;
};

int cap_from_environment() {
  const char* text = std::getenv("NEARFIELD_THREADS");
  if (text == nullptr || *text == '\0') return kMaxThreads;
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);
  if (*end != '\0' || value < 1) {
    throw InputError(std::string("NEARFIELD_THREADS: '") + text + "' given, a whole number >= 1 expected");
  }
  return static_cast<int>(std::min<long>(value, kMaxThreads));
}

}  // namespace

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

int resolve_threads(int requested) {
  const int wanted = requested > 0 ? requested : usable_cores();
  return std::max(1, std::min(wanted, cap_from_environment()));
}

Status parallel_for(std::size_t items, int threads, const std::function<void(std::size_t, std::size_t, std::size_t)>& body) {
  if (items == 0) return Status::good();
  const std::size_t parts = std::min<std::size_t>(items, static_cast<std::size_t>(std::max(1, std::min(threads, kMaxThreads))));
  std::vector<Status> results(parts);
  const std::size_t base = items / parts, extra = items % parts;
  const std::function<void(std::size_t)> run_part = [&](std::size_t part) {
    const std::size_t begin = part * base + std::min(part, extra);
    const std::size_t end = begin + base + (part < extra ? 1 : 0);
    try {
      body(begin, end, part);
    } catch (const InputError& problem) {
      results[part] = Status::bad_input(problem.what());
    } catch (const FormatError& problem) {
      results[part] = Status::bad_format(problem.what());
    } catch (const std::bad_alloc&) {
      results[part].code = Code::out_of_memory;
    } catch (const std::exception& problem) {
      results[part] = Status{Code::internal, problem.what()};
    }
  };
  if (parts == 1 || inside_job) {
    for (std::size_t part = 0; part < parts; ++part) run_part(part);
  } else {
    of_this_process<Pool>().run(parts, run_part);
  }
  for (const Status& result : results) {
    if (!result.ok()) return result;
  }
  return Status::good();
}

}  // namespace nf::parallel
