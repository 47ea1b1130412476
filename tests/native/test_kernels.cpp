// Every kernel on every target that runs here: odd lengths, rows whose memory ends with their last value, three forms against loops.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "compare_halves.h"
#include "compare_scans.h"
#include "harness.h"
#include "kernels/dispatch.h"
#include "oracle.h"

namespace nf::test {
namespace {

constexpr std::size_t kDims[] = {0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 384, 385};

template <typename T>
std::vector<Tight<T>> rows_of(std::size_t count, std::size_t dim, Random& random) {
  std::vector<Tight<T>> rows;
  std::uniform_int_distribution<int> bytes(-127, 127);
  std::normal_distribution<double> normal;
  for (std::size_t i = 0; i < count; ++i) {
    rows.emplace_back(dim, i % 3);
    for (std::size_t j = 0; j < dim; ++j) rows.back()[j] = sizeof(T) == 1 ? static_cast<T>(bytes(random)) : static_cast<T>(normal(random));
  }
  return rows;
}

// Rows one after the other, `stride` apart, the last ending with the memory.
template <typename T>
Tight<T> matrix_of(const std::vector<Tight<T>>& rows, std::size_t dim, std::size_t stride) {
  Tight<T> matrix(rows.empty() ? 0 : (rows.size() - 1) * stride + dim, 1);
  for (std::size_t i = 0; i < rows.size(); ++i) std::copy_n(rows[i].data(), dim, matrix.data() + i * stride);
  return matrix;
}

struct Near {
  double exact;
  double slack;
  template <typename T>
  bool holds(T value) const {
    return std::fabs(static_cast<double>(value) - exact) <= slack;
  }
};

// pair, gather and block of one kernel; near(q, r) is the exact value and the error that the contract allows.
template <typename Kernel, typename In, typename Out, typename Exact>
void check_forms(const Kernel& kernel, std::size_t dim, std::size_t nq, std::size_t nr, Random& random, Out, In, const Exact& near) {
  const Note note("dim", dim, "nq", nq, "nr", nr);
  const auto q = rows_of<In>(nq, dim, random), r = rows_of<In>(nr, dim, random);
  const std::size_t stride = dim + 3;
  const Tight<In> queries = matrix_of(q, dim, stride), rows = matrix_of(r, dim, stride);
  const std::size_t out_stride = nr + 2;
  Tight<Out> block(nq == 0 ? 0 : (nq - 1) * out_stride + nr, 1);
  kernel.block(queries.data(), stride, nq, rows.data(), stride, nr, dim, block.data(), out_stride);
  Tight<const In*> pointers(nr);
  for (std::size_t j = 0; j < nr; ++j) pointers[j] = r[j].data();
  for (std::size_t i = 0; i < nq; ++i) {
    Tight<Out> gathered(nr, 1);
    kernel.gather(q[i].data(), pointers.data(), nr, dim, gathered.data());
    for (std::size_t j = 0; j < nr; ++j) {
      const Near value = near(q[i].data(), r[j].data());
      CHECK(value.holds(block[i * out_stride + j]));
      CHECK(gathered[j] == block[i * out_stride + j]);
      CHECK(value.holds(kernel.pair(q[i].data(), r[j].data(), dim)));
    }
    if (i + 1 < nq) CHECK(block[i * out_stride + nr] == 0 && block[i * out_stride + nr + 1] == 0);  // between the rows of the answer
  }
}

constexpr std::size_t kShapes[][2] = {{1, 1}, {1, 9}, {2, 4}, {3, 5}, {4, 8}, {5, 17}, {7, 3}};

// Targets that only bring faster integer products leave the other kernels to those they extend.
std::string with_floats(const std::string& target) {
  if (target == "avxvnni") return "avx2";
  if (target == "avx512vnni" || target == "amx") return "avx512";
  return target.rfind("neon", 0) == 0 ? "scalar" : target;
}

TEST(float_kernels_stay_within_their_bounds) {
  Random random(1);
  on_each_target([&](const std::string& target) {
    const kernels::DotF32& dots = kernels::dot_f32();
    const kernels::L2SqrF32& distances = kernels::l2sqr_f32();
    CHECK(dots.target() == with_floats(target) && distances.target() == with_floats(target));
    for (const std::size_t dim : kDims) {
      const double n = static_cast<double>(dim);
      for (const auto& shape : kShapes) {
        check_forms(dots, dim, shape[0], shape[1], random, float{}, float{}, [&](const float* q, const float* r) {
          double size = 0.0;
          for (std::size_t i = 0; i < dim; ++i) size += std::fabs(static_cast<double>(q[i]) * static_cast<double>(r[i]));
          return Near{dot(q, r, dim), (n + 1) * 0x1p-24 * size * 1.001 + n * 0x1p-126};
        });
        check_forms(distances, dim, shape[0], shape[1], random, float{}, float{}, [&](const float* q, const float* r) {
          const double exact = -score(Metric::l2, q, r, dim);
          return Near{exact, (n + 4) * 0x1p-24 * exact * 1.001 + n * 0x1p-124 * (1 + norm(q, dim) + norm(r, dim))};
        });
      }
    }
  });
}

TEST(int8_kernels_are_exact) {
  Random random(2);
  on_each_target([&](const std::string& target) {
    const kernels::DotI8& dots = kernels::dot_i8();
    CHECK(dots.target() == (target == "avx512vnni" || target == "amx" ? std::string("avx512vnni") : std::string(with_floats(target))));
    const auto exact = [](std::size_t dim) {
      return [dim](const std::int8_t* q, const std::int8_t* r) {
        std::int64_t sum = 0;
        for (std::size_t i = 0; i < dim; ++i) sum += std::int64_t{q[i]} * r[i];
        return Near{static_cast<double>(sum), 0.0};
      };
    };
    for (const std::size_t dim : kDims) {
      for (const auto& shape : kShapes) check_forms(dots, dim, shape[0], shape[1], random, std::int32_t{}, std::int8_t{}, exact(dim));
    }
    // The largest dim of the contract, all values -127: the sum stays below 2^31.
    Tight<std::int8_t> lowest(kernels::kDotI8MaxDim, 1);
    std::fill_n(lowest.data(), kernels::kDotI8MaxDim, std::int8_t{-127});
    CHECK(dots.pair(lowest.data(), lowest.data(), kernels::kDotI8MaxDim) == static_cast<std::int32_t>(kernels::kDotI8MaxDim) * 127 * 127);
  });
}

std::uint16_t bf16_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return static_cast<std::uint16_t>(bits >> 16);
}

float from_bf16(std::uint16_t code) {
  const std::uint32_t bits = static_cast<std::uint32_t>(code) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

TEST(keys_are_inserted_where_they_belong) {
  Random random(4);
  on_each_target([&](const std::string& target) {
    const kernels::InsertKey& kernel = kernels::insert_key();
    CHECK(kernel.target() == std::string(target.rfind("avx512", 0) == 0 || target == "amx" ? "avx512" : "scalar"));
    for (const std::size_t size : {0, 1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 71, 72, 127, 128, 129, 200, 1000}) {
      const Note note("size", size);
      for (int round = 0; round < 20; ++round) {
        std::vector<std::uint64_t> expected(size);
        // Few values, so that many are equal; the top bit makes an order of signed numbers fail.
        for (std::uint64_t& key : expected) key = (random() % (round < 10 ? 4 : 100000)) * (std::uint64_t{1} << 47);
        std::sort(expected.begin(), expected.end());
        const std::uint64_t key = round == 0 || size == 0 ? ~std::uint64_t{0} : expected[random() % size] + random() % 2;
        Tight<std::uint64_t> keys(size + 1);
        std::copy(expected.begin(), expected.end(), keys.data());
        const auto place = std::lower_bound(expected.begin(), expected.end(), key);
        const auto at = static_cast<std::size_t>(place - expected.begin());
        expected.insert(place, key);
        CHECK(kernel.insert(keys.data(), size, key) == at);
        CHECK(std::equal(expected.begin(), expected.end(), keys.data()));
      }
    }
  });
}

TEST(keys_are_merged_where_they_belong) {
  Random random(5);
  on_each_target([&](const std::string&) {
    const kernels::InsertKey& kernel = kernels::insert_key();
    for (const std::size_t size : {0, 1, 7, 8, 9, 17, 64, 65, 72, 129, 200, 1000}) {
      for (const std::size_t n : {1, 2, 3, 7, 8, 9, 16, 17, 33, 63, 64}) {
        const Note note("size", size);
        const std::uint64_t range = random() % 2 == 0 ? 4 : 100000;
        const auto draw = [&] { return (random() % range) * (std::uint64_t{1} << 47) + random() % 2; };
        std::vector<std::uint64_t> expected(size);
        for (std::uint64_t& key : expected) key = draw();
        std::sort(expected.begin(), expected.end());
        Tight<std::uint64_t> keys(size + n), fresh(n);
        std::copy(expected.begin(), expected.end(), keys.data());
        for (std::size_t i = 0; i < n; ++i) fresh[i] = i % 5 == 4 ? ~std::uint64_t{0} : draw();
        const std::uint64_t least = *std::min_element(fresh.data(), fresh.data() + n);
        const auto at = static_cast<std::size_t>(std::lower_bound(expected.begin(), expected.end(), least) - expected.begin());
        expected.insert(expected.end(), fresh.data(), fresh.data() + n);
        std::sort(expected.begin(), expected.end());
        CHECK(kernel.merge(keys.data(), size, fresh.data(), n) == at);
        CHECK(std::equal(expected.begin(), expected.end(), keys.data()));
      }
    }
  });
}

TEST(codes_are_the_same_everywhere) {
  Random random(7);
  std::normal_distribution<float> normal;
  on_each_target([&](const std::string& target) {
    const kernels::CodeI8& kernel = kernels::code_i8();
    const bool wide = target.rfind("avx512", 0) == 0 || target == "amx", vectors = wide || target.rfind("avx", 0) == 0;
    CHECK(kernel.target() == std::string(wide ? "avx512" : vectors ? "avx2" : "scalar"));
    for (const std::size_t n : {0, 1, 7, 15, 16, 17, 31, 33, 64, 100, 384, 385}) {
      for (const float size : {1.0f, 1e-30f, 1e30f, 3e38f}) {
        const Note note("n", n);
        Tight<float> row(n), centre(n), rest(n);
        Tight<std::int8_t> codes(n), fine(n);
        for (std::size_t i = 0; i < n; ++i) {
          row[i] = i % 9 == 3 ? size : std::max(-size, std::min(size, 0.3f * normal(random) * size));
          centre[i] = i % 9 == 3 ? -size : 0.1f * normal(random) * size;
        }
        const float peak = kernel.rest(row.data(), centre.data(), n, rest.data());
        float largest = 0.0f;
        for (std::size_t i = 0; i < n; ++i) {
          const double gap = static_cast<double>(row[i]) - static_cast<double>(centre[i]), most = std::numeric_limits<float>::max();
          CHECK(rest[i] == static_cast<float>(std::max(-most, std::min(most, gap))));
          largest = std::max(largest, std::fabs(rest[i]));
        }
        CHECK(peak == largest);
        if (peak == 0.0f) continue;
        // Sixteen bits of scale, as codec/quantize.h makes it: products with codes are exact.
        float scale = peak / 127.0f;
        std::uint32_t bits;
        std::memcpy(&bits, &scale, sizeof(bits));
        bits = (bits & ~0xFFu) + (peak > 1e38f ? 0u : 0x100u);
        std::memcpy(&scale, &bits, sizeof(scale));
        const float inverse = 1.0f / scale, steps = 254.0f / scale;
        kernel.codes(rest.data(), n, inverse, codes.data());
        for (std::size_t i = 0; i < n; ++i) CHECK(codes[i] == static_cast<std::int8_t>(std::lrintf(rest[i] * inverse)));
        kernel.fine(rest.data(), codes.data(), n, scale, steps, fine.data());
        for (std::size_t i = 0; i < n; ++i) {
          const float left = (rest[i] - scale * static_cast<float>(codes[i])) * steps;
          CHECK(fine[i] == static_cast<std::int8_t>(std::lrintf(std::max(-127.0f, std::min(127.0f, left)))));
        }
      }
    }
  });
}

TEST(a_round_of_a_rotation_is_the_same_everywhere) {
  Random random(6);
  std::normal_distribution<float> normal;
  on_each_target([&](const std::string& target) {
    const kernels::Hadamard& kernel = kernels::hadamard();
    const bool wide = target.rfind("avx512", 0) == 0 || target == "amx", vectors = wide || target.rfind("avx", 0) == 0;
    CHECK(kernel.target() == std::string(wide ? "avx512" : vectors ? "avx2" : "scalar"));
    for (const std::size_t size : {16, 32, 64, 256, 1024}) {
      for (const std::size_t beside : {0, 16, 48}) {
        const Note note("size", size);
        const std::size_t count = size + beside, begin = random() % 2 == 0 ? 0 : beside;
        Tight<float> values(count), signs(count);
        for (std::size_t i = 0; i < count; ++i) {
          signs[i] = random() % 2 == 0 ? -0.0625f : 0.0625f;
          values[i] = random() % 8 == 0 ? 1e-42f : normal(random);
        }
        std::vector<float> expected(count);
        for (std::size_t i = 0; i < count; ++i) expected[i] = values[i] * signs[i];
        for (std::size_t half = size / 2; half > 0; half /= 2) {
          for (std::size_t i = begin; i < begin + size; ++i) {
            if (((i - begin) & half) != 0) continue;
            const float sum = expected[i] + expected[i + half], gap = expected[i] - expected[i + half];
            expected[i] = sum;
            expected[i + half] = gap;
          }
        }
        // By the matrix itself: entry (i, j) is -1 to the number of ones that i and j have in common.
        double length = 0.0;
        for (std::size_t j = 0; j < size; ++j) length += std::fabs(static_cast<double>(values[begin + j]) * signs[begin + j]);
        for (std::size_t i = 0; i < size; ++i) {
          double sum = 0.0;
          for (std::size_t j = 0; j < size; ++j) {
            const double term = static_cast<double>(values[begin + j]) * signs[begin + j];
            sum += __builtin_parityll(i & j) != 0 ? -term : term;
          }
          CHECK(std::fabs(sum - expected[begin + i]) <= 1e-5 * length + 1e-40);
        }
        kernel.round(values.data(), signs.data(), count, begin, size);
        CHECK(std::memcmp(values.data(), expected.data(), count * sizeof(float)) == 0);
      }
    }
  });
}

TEST(estimates_are_the_same_everywhere) {
  Random random(3);
  std::normal_distribution<float> normal;
  on_each_target([&](const std::string& target) {
    const kernels::Estimate1Bit& kernel = kernels::estimate_1bit();
    const bool wide = target.rfind("avx512", 0) == 0 || target == "amx", vectors = wide || target.rfind("avx", 0) == 0;
    CHECK(kernel.target() == std::string(wide ? "avx512" : vectors ? "avx2" : "scalar"));
    for (const std::size_t groups : {4, 8, 12, 28, 96, 100, 260}) {
      const Note note("groups", groups);
      Tight<float> values(4 * groups), out(32);
      Tight<std::uint8_t> tables(16 * groups), codes(16 * groups);
      Tight<std::uint16_t> add(32), factor(32);
      float widest = 0.0f;
      for (std::size_t g = 0; g < groups; ++g) {
        float reach = 0.0f;
        for (std::size_t j = 4 * g; j < 4 * g + 4; ++j) reach += std::fabs(values[j] = j % 7 == 0 ? 0.0f : normal(random));
        widest = std::max(widest, reach);
      }
      const float scale = 31.0f / widest;
      kernel.tables(values.data(), groups, scale, tables.data());
      for (std::size_t at = 0; at < 16 * groups; ++at) {
        float sum = 0.5f;
        for (std::size_t j = 0; j < 4; ++j) {
          const float value = scale * values[at / 16 * 4 + j];
          sum += (at >> j & 1) != 0 ? std::max(value, 0.0f) : std::max(-value, 0.0f);
        }
        CHECK(tables[at] == static_cast<int>(sum) && tables[at] <= 31);
        codes[at] = static_cast<std::uint8_t>(random());
        if (groups == 100) tables[at] = 31;  // the largest sums
      }
      for (std::size_t i = 0; i < 32; ++i) {
        add[i] = bf16_of(normal(random));
        factor[i] = bf16_of(normal(random));
      }
      add[5] = 0x7FC0;  // NaN
      const kernels::Estimate1BitQuery query{tables.data(), groups, 0.25f, -1.5f};
      Tight<std::uint8_t> later(groups * 20);  // fetched ahead, which changes nothing
      const kernels::Estimate1BitRows rows{codes.data(), add.data(), factor.data(), groups % 8 == 0 ? later.data() : nullptr, groups * 20};
      const std::uint32_t below = kernel.block(&query, &rows, 0.75f, 1.0f, out.data());
      for (std::size_t i = 0; i < 32; ++i) {
        unsigned sum = 0;
        for (std::size_t g = 0; g < groups; ++g) sum += tables[16 * g + (codes[16 * g + i % 16] >> (i < 16 ? 0 : 4) & 15)];
        const float product = 0.25f * static_cast<float>(sum) + -1.5f, scaled = from_bf16(factor[i]) * product;
        const float expected = 0.75f + (from_bf16(add[i]) + scaled);
        CHECK(i == 5 ? std::isnan(out[i]) : out[i] == expected);
        CHECK((below >> i & 1u) == (expected < 1.0f ? 1u : 0u));
      }
    }
  });
}

TEST(the_scan_lets_through_what_reaches_the_cut) {
  on_each_target([&](const std::string& target) {
    const kernels::ScanI8& kernel = kernels::scan_i8();
    CHECK(kernel.target() == target);
    compare_scans(kernel);
    CHECK(failures == 0);
  });
}

// Where it stands in for float32 products by measurement, or because its target is forced; nowhere else.
TEST(products_with_bfloat16_rows_stay_within_their_bound) {
  on_each_target([&](const std::string& target) {
    const kernels::DotBf16* const kernel = kernels::dot_bf16();
    CHECK((kernel != nullptr) == (target == "scalar" || target == "amx"));
    if (kernel == nullptr) return;
    CHECK(kernel->target() == target);
    compare_halves(*kernel);
    CHECK(failures == 0);
  });
  const kernels::DotBf16* const measured = kernels::dot_bf16();
  CHECK(measured == nullptr || measured->target() == std::string("amx"));
}

}  // namespace
}  // namespace nf::test
