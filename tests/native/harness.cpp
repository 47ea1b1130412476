#include "harness.h"

#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <vector>

namespace nf::test {
namespace {

struct Test {
  const char* name;
  void (*run)();
};

std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

std::atomic<int> failures{0};
constexpr int kShown = 20;  // a broken kernel fails a thousand checks; the first ones say enough

thread_local std::vector<std::string> notes;

// Arguments are parts of names; one behind a minus leaves tests out.
bool wanted(const char* name, int argc, char** argv) {
  bool any = true, found = false;
  for (int i = 1; i < argc; ++i) {
    if (argv[i][0] == '-') {
      if (std::strstr(name, argv[i] + 1) != nullptr) return false;
    } else {
      any = false;
      found = found || std::strstr(name, argv[i]) != nullptr;
    }
  }
  return any || found;
}

}  // namespace

Registered::Registered(const char* name, void (*run)()) { tests().push_back({name, run}); }

void Note::push(std::string text) { notes.push_back(std::move(text)); }
void Note::pop() { notes.pop_back(); }

void check(bool good, const char* what, const char* file, int line) {
  if (good || failures++ >= kShown) return;
  std::string where;
  for (const std::string& note : notes) where += " [" + note.substr(0, note.size() - 1) + "]";
  std::fprintf(stderr, "%s:%d: failed: %s%s\n", file, line, what, where.c_str());
}

}  // namespace nf::test

int main(int argc, char** argv) {
  using namespace nf::test;
  using Clock = std::chrono::steady_clock;
  int ran = 0;
  for (const Test& test : tests()) {
    if (!wanted(test.name, argc, argv)) continue;
    ++ran;
    const int before = failures;
    const auto start = Clock::now();
    try {
      test.run();
    } catch (const std::exception& problem) {
      std::fprintf(stderr, "%s: an exception got out: %s\n", test.name, problem.what());
      ++failures;
    }
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    std::printf("%-60s %s %7.2f s\n", test.name, failures == before ? "ok    " : "FAILED", seconds);
    std::fflush(stdout);
  }
  std::printf("%d tests, %d failed checks\n", ran, failures.load());
  return ran != 0 && failures == 0 ? 0 : 1;
}
