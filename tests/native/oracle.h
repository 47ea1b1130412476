// What the tests compare with: float64 loops, nothing clever; and rows whose memory ends where their values do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "base/metric.h"

namespace nf::test {

using Random = std::mt19937_64;

// `count` values that end with their allocation and begin `offset` elements after its start, so that AddressSanitizer and valgrind see a read of
// one element too many, and no row is aligned to more than its element.
template <typename T>
class Tight {
 public:
  explicit Tight(std::size_t count, std::size_t offset = 0) : offset_(offset), memory_(new T[count + offset]()) {}
  ~Tight() { delete[] memory_; }
  Tight(Tight&& other) noexcept : offset_(other.offset_), memory_(other.memory_) { other.memory_ = nullptr; }
  Tight(const Tight&) = delete;
  Tight& operator=(const Tight&) = delete;
  T* data() { return memory_ + offset_; }
  const T* data() const { return memory_ + offset_; }
  T& operator[](std::size_t i) { return memory_[offset_ + i]; }
  const T& operator[](std::size_t i) const { return memory_[offset_ + i]; }

 private:
  std::size_t offset_;
  T* memory_;
};

// How rows are drawn; the names say what is difficult about them.
enum class Kind { normal, whole, duplicates, mixed_norms, huge, tiny, denormal, near_ties };
constexpr Kind kKinds[] = {Kind::normal, Kind::whole, Kind::duplicates, Kind::mixed_norms, Kind::huge, Kind::tiny, Kind::denormal, Kind::near_ties};
const char* name_of(Kind kind);
std::vector<float> draw(Kind kind, std::size_t rows, std::size_t dim, Random& random);

double dot(const float* q, const float* x, std::size_t dim);
double norm(const float* q, std::size_t dim);
// The score that score/scan.h defines, of a stored row.
double score(Metric metric, const float* q, const float* x, std::size_t dim);
// By how much two float64 computations of that score may differ, and with it the order of two rows.
double tolerance(Metric metric, const float* q, const float* x, std::size_t dim, double bias);

// One query's answer against every score: as many as there can be, best first, each once, all allowed, none better left out; where scores are
// exact in float64 (`exact`), the very slots.
struct Expected {
  std::vector<double> scores;      // of every row, bias included
  std::vector<double> tolerances;  // of every row
  std::vector<bool> allowed;
  bool exact = false;
};
void check_answer(const Expected& expected, std::size_t k, const std::int64_t* slots, const float* scores, std::int64_t count);

// Every target that is built and runs here, in turn: forces it, calls body(name), and goes back to the default.
void on_each_target(const std::function<void(const std::string&)>& body);

// A file of this test's own, removed at the end.
class TemporaryFile {
 public:
  TemporaryFile();
  ~TemporaryFile();
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  std::string path() const { return folder_ + "/file"; }
  std::vector<unsigned char> read() const;
  void write(const unsigned char* data, std::size_t bytes) const;

 private:
  std::string folder_;
};

}  // namespace nf::test
