#include "oracle.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "harness.h"
#include "simd/targets.h"

namespace nf::test {

const char* name_of(Kind kind) {
  switch (kind) {
    case Kind::normal: return "normal";
    case Kind::whole: return "whole";
    case Kind::duplicates: return "duplicates";
    case Kind::mixed_norms: return "mixed_norms";
    case Kind::huge: return "huge";
    case Kind::tiny: return "tiny";
    case Kind::denormal: return "denormal";
    case Kind::near_ties: return "near_ties";
  }
  return "";
}

std::vector<float> draw(Kind kind, std::size_t rows, std::size_t dim, Random& random) {
  std::vector<float> values(rows * dim);
  std::normal_distribution<float> normal;
  std::uniform_int_distribution<int> whole(-8, 8), exponent(-30, 30), bit(0, 1);
  for (float& value : values) value = kind == Kind::whole ? static_cast<float>(whole(random)) : normal(random);
  // 1e36: the square of a distance leaves float32, the norm of a row of some hundred dimensions does not.
  const float factor = kind == Kind::huge ? 1e36f : kind == Kind::tiny ? 1e-30f : kind == Kind::denormal ? 1e-42f : 1.0f;
  for (float& value : values) value *= factor;
  for (std::size_t i = 0; i < rows; ++i) {
    float* const row = values.data() + i * dim;
    if (kind == Kind::duplicates) std::copy_n(values.data() + i % 3 * dim, dim, row);
    const float scale = kind == Kind::mixed_norms ? std::ldexp(1.0f, exponent(random)) : 1.0f;
    for (std::size_t j = 0; j < dim; ++j) row[j] *= scale;
    if (kind == Kind::near_ties) {  // one rounding step apart in one place
      std::copy_n(values.data(), dim, row);
      float& value = row[i % dim];
      if (i != 0 && bit(random) != 0) value = std::nextafter(value, std::numeric_limits<float>::infinity());
    }
  }
  return values;
}

double dot(const float* q, const float* x, std::size_t dim) {
  double sum = 0.0;
  for (std::size_t i = 0; i < dim; ++i) sum += static_cast<double>(q[i]) * static_cast<double>(x[i]);
  return sum;
}

double norm(const float* q, std::size_t dim) { return std::sqrt(dot(q, q, dim)); }

double score(Metric metric, const float* q, const float* x, std::size_t dim) {
  if (metric == Metric::cosine) {
    const double length = norm(q, dim);
    return length == 0.0 ? 0.0 : dot(q, x, dim) / length;
  }
  if (metric == Metric::ip) return dot(q, x, dim);
  double sum = 0.0;
  for (std::size_t i = 0; i < dim; ++i) {
    const double gap = static_cast<double>(q[i]) - static_cast<double>(x[i]);
    sum += gap * gap;
  }
  return -sum;
}

double tolerance(Metric metric, const float* q, const float* x, std::size_t dim, double bias) {
  const double nq = metric == Metric::cosine ? 1.0 : norm(q, dim), nx = norm(x, dim);
  const double size = metric == Metric::l2 ? -score(metric, q, x, dim) : nq * nx;
  return static_cast<double>(dim + 4) * 0x1p-52 * size + 0x1p-51 * std::fabs(bias);
}

void check_answer(const Expected& expected, std::size_t k, const std::int64_t* slots, const float* scores, std::int64_t count) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < expected.scores.size(); ++i) {
    if (expected.allowed[i]) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return expected.scores[a] > expected.scores[b]; });
  const std::size_t want = std::min(k, order.size());
  CHECK(count == static_cast<std::int64_t>(want));
  if (count != static_cast<std::int64_t>(want)) return;
  std::vector<bool> seen(expected.scores.size(), false);
  for (std::size_t i = 0; i < want; ++i) {
    const bool valid = slots[i] >= 0 && static_cast<std::size_t>(slots[i]) < seen.size() && expected.allowed[static_cast<std::size_t>(slots[i])] &&
                       !seen[static_cast<std::size_t>(slots[i])];
    CHECK(valid);
    if (!valid) return;
    const auto slot = static_cast<std::size_t>(slots[i]);
    seen[slot] = true;
    const double gap = std::fabs(expected.scores[slot] - expected.scores[order[i]]);
    CHECK(gap <= expected.tolerances[slot] + expected.tolerances[order[i]]);
    if (expected.exact) CHECK(slot == order[i]);
    // Scores leave as float32, rounded once.
    const float rounded = static_cast<float>(expected.scores[slot]);
    const double slack = expected.tolerances[slot] + 0x1p-23 * std::fabs(expected.scores[slot]) + 0x1p-149;
    CHECK(scores[i] == rounded || std::fabs(static_cast<double>(scores[i]) - expected.scores[slot]) <= slack);
  }
  for (std::size_t i = want; i < k; ++i) CHECK(slots[i] == -1 && std::isnan(scores[i]));
}

void on_each_target(const std::function<void(const std::string&)>& body) {
  for (std::size_t i = 0; i < simd::kTargetCount; ++i) {
    const simd::TargetInfo& info = simd::target_at(i);
    if (!info.built || !simd::runs_here(info)) continue;
    const Note note(info.name);
    simd::force(info.name);
    body(info.name);
  }
  simd::force("");
}

TemporaryFile::TemporaryFile() {
  folder_ = (std::filesystem::temp_directory_path() / "nearfield-native-XXXXXX").string();
  if (mkdtemp(folder_.data()) == nullptr) throw std::runtime_error("no temporary folder");
}

TemporaryFile::~TemporaryFile() {
  unlink(path().c_str());
  rmdir(folder_.c_str());
}

std::vector<unsigned char> TemporaryFile::read() const {
  std::vector<unsigned char> bytes;
  std::FILE* const file = std::fopen(path().c_str(), "rb");
  if (file == nullptr) throw std::runtime_error("cannot read the temporary file");
  for (int c = std::fgetc(file); c != EOF; c = std::fgetc(file)) bytes.push_back(static_cast<unsigned char>(c));
  std::fclose(file);
  return bytes;
}

void TemporaryFile::write(const unsigned char* data, std::size_t bytes) const {
  unlink(path().c_str());  // a new file each time: ext4 flushes one that is truncated and written again, a millisecond of waiting
  std::FILE* const file = std::fopen(path().c_str(), "wb");
  if (file == nullptr) throw std::runtime_error("cannot write the temporary file");
  const std::size_t done = bytes == 0 ? 0 : std::fwrite(data, 1, bytes, file);
  if (std::fclose(file) != 0 || done != bytes) throw std::runtime_error("cannot write the temporary file");
}

}  // namespace nf::test
