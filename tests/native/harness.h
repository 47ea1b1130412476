// The least that a test needs: TEST registers a function, CHECK counts a failure and goes on, CHECK_THROWS wants an exception of a type.
// Checks may be made on any thread.
#pragma once

#include <atomic>
#include <sstream>
#include <string>

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;  // tests that only repeat themselves do less: a sanitizer makes them 5 to 20 times slower
#else
constexpr bool kSanitized = false;
#endif

namespace nf::test {

struct Registered {
  Registered(const char* name, void (*run)());
};

// Where in a loop a test is, for its messages: a scope's text stays until the scope ends.
class Note {
 public:
  template <typename... Parts>
  explicit Note(const Parts&... parts) {
    std::ostringstream text;
    ((text << parts << ' '), ...);
    push(text.str());
  }
  ~Note() { pop(); }
  Note(const Note&) = delete;
  Note& operator=(const Note&) = delete;

 private:
  static void push(std::string text);
  static void pop();
};

void check(bool good, const char* what, const char* file, int line);

// The message of an InputError or FormatError must hold what the test says it holds.
inline bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace nf::test

#define TEST(name)                                                     \
  static void name();                                                  \
  static const nf::test::Registered registered_##name(#name, name);    \
  static void name()

#define CHECK(...) nf::test::check(static_cast<bool>(__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)

#define CHECK_THROWS(type, part, ...)                                                                                  \
  do {                                                                                                                 \
    bool thrown = false;                                                                                               \
    try {                                                                                                              \
      __VA_ARGS__;                                                                                                     \
    } catch (const type& problem) {                                                                                    \
      thrown = nf::test::holds(problem.what(), part);                                                                  \
    }                                                                                                                  \
    nf::test::check(thrown, "throws " #type " with " #part ": " #__VA_ARGS__, __FILE__, __LINE__);                     \
  } while (false)
