// The exact store and the free functions against float64 loops: metrics, storages, filters, biases, deletes, k beyond n, difficult rows.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "harness.h"
#include "oracle.h"
#include "score/borrowed.h"
#include "score/flat_store.h"

namespace nf::test {
namespace {

constexpr Metric kMetrics[] = {Metric::cosine, Metric::ip, Metric::l2};
constexpr Storage kStorages[] = {Storage::float32, Storage::bfloat16, Storage::int8};

struct Found {
  std::vector<std::int64_t> slots, counts, rescored;
  std::vector<float> scores;
  Found(std::size_t nq, std::size_t k) : slots(nq * k, -7), counts(nq, -7), rescored(nq, -7), scores(nq * k, -7.0f) {}
  score::Answer answer() { return {slots.data(), scores.data(), counts.data(), rescored.data()}; }
};

struct Case {
  std::size_t k = 10;
  int threads = 1;
  std::size_t mask_rows = 0, bias_rows = 0;  // 0: none, 1: for all queries, otherwise one for each
  double keep = 0.5;                         // of the mask
  float bias = 1.0f;                         // its size
};

// Searches the store once and compares with a loop over what it says it stores.
void check_search(const score::FlatStore& store, const std::vector<bool>& live, const std::vector<float>& queries, const Case& given, bool exact,
                  Random& random) {
  const std::size_t dim = store.dim(), n = live.size(), nq = queries.size() / dim;
  const Note note("k", given.k, "threads", given.threads, "mask", given.mask_rows, "bias", given.bias_rows, "nq", nq);
  Tight<std::uint8_t> mask(given.mask_rows * n);
  Tight<float> bias(given.bias_rows * n);
  std::bernoulli_distribution keep(given.keep);
  std::normal_distribution<float> normal(0.0f, given.bias);
  for (std::size_t i = 0; i < given.mask_rows * n; ++i) mask[i] = keep(random) ? 1 : 0;
  for (std::size_t i = 0; i < given.bias_rows * n; ++i) bias[i] = exact ? std::round(normal(random)) : normal(random);
  score::Options options;
  options.k = given.k;
  options.threads = given.threads;
  if (given.mask_rows != 0) options.mask = MatrixView<std::uint8_t>(mask.data(), given.mask_rows, n);
  if (given.bias_rows != 0) options.bias = MatrixView<float>(bias.data(), given.bias_rows, n);
  Found found(nq, given.k);
  store.search(MatrixView<float>(queries.data(), nq, dim), options, n, found.answer());
  std::vector<std::uint64_t> slots(n);
  for (std::size_t j = 0; j < n; ++j) slots[j] = j;
  std::vector<float> rows(n * dim);
  store.get(slots, rows.data());
  for (std::size_t i = 0; i < nq; ++i) {
    Expected expected;
    expected.exact = exact;
    const float* const q = queries.data() + i * dim;
    for (std::size_t j = 0; j < n; ++j) {
      const float* const row = rows.data() + j * dim;
      const double added = given.bias_rows == 0 ? 0.0 : static_cast<double>(bias[(given.bias_rows == 1 ? 0 : i) * n + j]);
      expected.scores.push_back(score(store.metric(), q, row, dim) + added);
      expected.tolerances.push_back(exact ? 0.0 : tolerance(store.metric(), q, row, dim, added));
      expected.allowed.push_back(live[j] && (given.mask_rows == 0 || mask[(given.mask_rows == 1 ? 0 : i) * n + j] != 0));
    }
    check_answer(expected, given.k, found.slots.data() + i * given.k, found.scores.data() + i * given.k, found.counts[i]);
    CHECK(found.rescored[i] >= found.counts[i] && found.rescored[i] <= static_cast<std::int64_t>(n));
  }
}

// Appended in pieces: segments of their own, filled ones, tiles that end early. Every seventh row is deleted, some with a later append.
std::unique_ptr<score::FlatStore> store_of(Metric metric, Storage storage, const std::vector<float>& rows, std::size_t dim, std::vector<bool>& live) {
  auto store = std::make_unique<score::FlatStore>(dim, metric, storage);
  const std::size_t n = rows.size() / dim, pieces[] = {0, 1, 5, 17, 100, 3, 64, 128};
  live.assign(n, true);
  std::size_t at = 0;
  for (std::size_t p = 0; at < n; ++p) {
    const std::size_t count = std::min(pieces[p % 8], n - at);
    std::vector<std::uint64_t> dead;
    if (at > 7) dead = {at - 7, at - 7};
    Tight<float> piece(count * dim);
    std::copy_n(rows.data() + at * dim, count * dim, piece.data());
    store->append(MatrixView<float>(piece.data(), count, dim), dead, 2);
    for (const std::uint64_t slot : dead) live[slot] = false;
    at += count;
  }
  return store;
}

// Sums of small integers are exact in float64, so ties and order are known to the last slot. Unit rows and rows of int8 codes are not whole.
bool is_exact(Metric metric, Storage storage, Kind kind) { return kind == Kind::whole && metric != Metric::cosine && storage == Storage::float32; }

TEST(flat_search_is_exact_on_difficult_rows) {
  Random random(7);
  for (const Metric metric : kMetrics) {
    for (const Storage storage : kStorages) {
      for (const Kind kind : kKinds) {
        const Note note(nf::name_of(metric), nf::name_of(storage), name_of(kind));
        const std::size_t dim = 19, n = 330;
        std::vector<bool> live;
        const auto store = store_of(metric, storage, draw(kind, n, dim, random), dim, live);
        const Kind query_kind = kind == Kind::huge && metric != Metric::l2 ? Kind::normal : kind;
        const std::vector<float> queries = draw(query_kind, 3, dim, random);
        check_search(*store, live, queries, Case{}, is_exact(metric, storage, kind), random);
        check_search(*store, live, queries, Case{n + 9, 2}, is_exact(metric, storage, kind), random);
        check_search(*store, live, queries, Case{5, 2, 1, 3, 0.3, 4.0f}, is_exact(metric, storage, kind), random);
        for (const std::size_t masks : {1, 3}) check_search(*store, live, queries, Case{5, 2, masks, 1, 0.05, 4.0f}, is_exact(metric, storage, kind), random);
      }
    }
  }
}

TEST(flat_search_is_exact_on_every_target_and_odd_dim) {
  Random random(8);
  on_each_target([&](const std::string&) {
    for (const std::size_t dim : {1, 2, 3, 5, 8, 31, 64, 65, 130}) {
      for (const Metric metric : kMetrics) {
        const Storage storage = kStorages[dim % 3];
        const Note note("dim", dim, nf::name_of(metric), nf::name_of(storage));
        std::vector<bool> live;
        const auto store = store_of(metric, storage, draw(Kind::normal, 300, dim, random), dim, live);
        check_search(*store, live, draw(Kind::normal, 13, dim, random), Case{7, 1}, false, random);
      }
    }
  });
}

TEST(flat_search_with_filters_biases_and_threads) {
  Random random(9);
  const std::size_t dim = 24, n = 700;
  for (const Metric metric : kMetrics) {
    std::vector<bool> live;
    const auto store = store_of(metric, Storage::float32, draw(Kind::normal, n, dim, random), dim, live);
    for (const std::size_t nq : {1, 2, 33, 101}) {
      const std::vector<float> queries = draw(Kind::normal, nq, dim, random);
      for (const Case& each : {Case{1, 1, 1, 0, 0.01}, Case{10, 2, nq, 0, 0.5}, Case{10, 2, 0, 1, 0.5, 1e30f}, Case{10, 3, 0, nq, 0.5, 1e-30f},
                               Case{20, 2, nq, nq, 0.9}, Case{10, 2, 1, 0, 0.0}, Case{3, 7, 0, 0}}) {
        check_search(*store, live, queries, each, false, random);
      }
    }
  }
}

// Rows that came after the search's moment share a tile with its last ones: filters and biases end before them.
TEST(flat_search_below_rows_that_came_later) {
  Random random(16);
  const std::size_t dim = 24;
  for (const Metric metric : kMetrics) {
    score::FlatStore store(dim, metric, Storage::float32);
    const std::vector<float> rows = draw(Kind::normal, 700, dim, random);
    store.append(MatrixView<float>(rows.data(), 700, dim), {}, 2);
    for (const std::size_t limit : {1, 129, 300, 511, 700}) {
      const std::vector<bool> live(limit, true);
      for (const std::size_t nq : {1, 3, 140}) {
        const std::vector<float> queries = draw(Kind::normal, nq, dim, random);
        for (const double keep : {1.0, 0.5, 0.02}) check_search(store, live, queries, Case{10, 2, nq, 1, keep}, false, random);
      }
    }
  }
}

// Enough equal rows in a row that codes exclude nothing and the scan goes over to float32; and queries that float32 cannot hold.
TEST(flat_search_where_bounds_are_useless) {
  Random random(10);
  const std::size_t dim = 9;
  for (const Metric metric : kMetrics) {
    std::vector<bool> live;
    std::vector<float> far = draw(Kind::whole, 2500, dim, random);
    for (float& value : far) value += metric == Metric::l2 ? 1e6f : 0.0f;
    const auto store = store_of(metric, Storage::float32, far, dim, live);
    check_search(*store, live, draw(Kind::whole, 2, dim, random), Case{6, 2}, metric != Metric::cosine, random);
    const auto same = store_of(metric, Storage::int8, std::vector<float>(2500 * dim, 0.5f), dim, live);
    check_search(*same, live, draw(Kind::normal, 2, dim, random), Case{300, 1}, false, random);
    const auto huge = store_of(metric, Storage::float32, draw(Kind::huge, 400, dim, random), dim, live);
    check_search(*huge, live, draw(Kind::huge, 2, dim, random), Case{6, 1}, false, random);
    const auto zero = store_of(metric, Storage::float32, std::vector<float>(300 * dim, 0.0f), dim, live);
    check_search(*zero, live, std::vector<float>(dim, 0.0f), Case{40, 1}, true, random);
  }
}

// Rows closer together than codes can tell: most tiles are scored without codes, bfloat16 ones on two targets without widening them first.
TEST(flat_search_of_crowded_bfloat16_rows) {
  Random random(14);
  std::normal_distribution<float> normal;
  on_each_target([&](const std::string&) {
    for (const std::size_t dim : {7, 40}) {
      std::vector<float> rows(2500 * dim);
      for (float& value : rows) value = 1.0f + 0.004f * normal(random);
      for (const Metric metric : kMetrics) {
        const Note note("dim", dim, nf::name_of(metric));
        std::vector<bool> live;
        const auto store = store_of(metric, Storage::bfloat16, rows, dim, live);
        check_search(*store, live, draw(Kind::normal, 17, dim, random), Case{10, 2}, false, random);
        check_search(*store, live, draw(Kind::mixed_norms, 33, dim, random), Case{10, 1, 1, 33, 0.9, 0.01f}, false, random);
      }
    }
  });
}

// Among 300 rows stand ten good ones, which set the threshold; later ones are better by a fraction of what codes leave open.
TEST(flat_search_keeps_a_row_just_above_the_threshold) {
  Random random(13);
  const std::size_t dim = 24, n = 900;
  for (const Storage storage : kStorages) {
    for (int round = 0; round < 10; ++round) {
      const std::vector<float> query = draw(Kind::normal, 1, dim, random);
      std::vector<float> rows = draw(Kind::normal, n, dim, random);
      const auto set = [&](std::size_t row, float factor) {
        for (std::size_t i = 0; i < dim; ++i) rows[row * dim + i] = query[i] * factor;
      };
      for (std::size_t i = 0; i < 10; ++i) set(i * 7, 1.5f + 1e-3f * static_cast<float>(i));
      for (const std::size_t late : {500, 640, 899}) set(late, 1.502f + 1e-5f * static_cast<float>(late - 500));
      score::FlatStore store(dim, Metric::ip, storage);
      store.append(MatrixView<float>(rows.data(), n, dim), {}, 1);
      check_search(store, std::vector<bool>(n, true), query, Case{10, 1}, false, random);
    }
  }
}

TEST(flat_store_of_many_rows_in_one_segment) {
  Random random(11);
  const std::size_t dim = 6, n = 5000;
  const std::vector<float> rows = draw(Kind::normal, n, dim, random);
  for (const Storage storage : kStorages) {
    score::FlatStore store(dim, Metric::ip, storage);
    store.append(MatrixView<float>(rows.data(), n, dim), {}, 2);
    store.append(MatrixView<float>(rows.data(), 3, dim), {n - 1}, 2);
    std::vector<bool> live(n + 3, true);
    live[n - 1] = false;
    check_search(store, live, draw(Kind::normal, 2, dim, random), Case{10, 2}, false, random);
    const auto compact = store.compacted();
    CHECK(compact->slots() == n + 2 && compact->live() == n + 2 && store.live() == n + 2);
    check_search(*compact, std::vector<bool>(n + 2, true), draw(Kind::normal, 2, dim, random), Case{10, 2}, false, random);
    CHECK(store.live_slots().size() == n + 2 && store.live_slots()[n - 1] == n);
  }
}

TEST(flat_store_refuses_and_stays_as_it_was) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  score::FlatStore store(2, Metric::cosine, Storage::float32);
  const float good[] = {1, 2, 3, 4}, bad[] = {1, 2, 3, nan}, endless[] = {1, 2, -infinity, 3}, long_row[] = {1, 2, 3e38f, 3e38f};
  store.append(MatrixView<float>(good, 2, 2), {}, 1);
  for (const int threads : {1, 2}) {
    CHECK_THROWS(InputError, "row 1 holds NaN in column 1", store.append(MatrixView<float>(bad, 2, 2), {}, threads));
    CHECK_THROWS(InputError, "row 1 holds infinity in column 0", store.append(MatrixView<float>(endless, 2, 2), {}, threads));
    CHECK_THROWS(InputError, "row 1 has a norm beyond float32", store.append(MatrixView<float>(long_row, 2, 2), {}, threads));
    CHECK_THROWS(InputError, "slot 2 does not exist", store.append(MatrixView<float>(good, 2, 2), {2}, threads));
  }
  Found found(2, 3);
  CHECK_THROWS(InputError, "queries: row 1", store.search(MatrixView<float>(bad, 2, 2), score::Options{}, 2, found.answer()));
  CHECK_THROWS(InputError, "limit beyond", store.search(MatrixView<float>(good, 2, 2), score::Options{}, 3, found.answer()));
  float out[4];
  CHECK_THROWS(InputError, "slot 2 does not exist", store.get({0, 2}, out));
  CHECK_THROWS(InputError, "dim: 0 given", score::FlatStore(0, Metric::ip, Storage::int8));
  CHECK(store.slots() == 2 && store.live() == 2);
  score::FlatStore empty(2, Metric::l2, Storage::int8);
  score::Options options;
  options.k = 3;
  empty.search(MatrixView<float>(good, 2, 2), options, 0, found.answer());
  CHECK(found.counts[0] == 0 && found.counts[1] == 0 && found.slots[5] == -1 && std::isnan(found.scores[0]));
}

TEST(borrowed_rows_are_scored_and_searched) {
  Random random(12);
  for (const Metric metric : kMetrics) {
    for (const Kind kind : kKinds) {
      const Note note(nf::name_of(metric), name_of(kind));
      const std::size_t dim = 21, n = 270, nq = 5, k = 9;
      Tight<float> rows(n * dim), queries(nq * dim);
      const std::vector<float> r = draw(kind, n, dim, random), q = draw(kind == Kind::huge ? Kind::normal : kind, nq, dim, random);
      std::copy(r.begin(), r.end(), rows.data());
      std::copy(q.begin(), q.end(), queries.data());
      const MatrixView<float> row_view(rows.data(), n, dim), query_view(queries.data(), nq, dim);
      Tight<float> matrix(nq * n);
      score::score_matrix(metric, query_view, row_view, 2, matrix.data());
      Found found(nq, k);
      score::topk(metric, query_view, row_view, k, 2, found.slots.data(), found.scores.data(), found.counts.data());
      // Cosine scores the rows scaled to norm 1 and rounded: within a float32 rounding of each value of the row.
      const double rounding = metric == Metric::cosine ? 0x1p-22 : 0.0;
      for (std::size_t i = 0; i < nq; ++i) {
        Expected expected;
        for (std::size_t j = 0; j < n; ++j) {
          const float *a = queries.data() + i * dim, *b = rows.data() + j * dim;
          const double length = metric == Metric::cosine ? norm(b, dim) : 1.0;
          const double exact = length == 0.0 ? 0.0 : score(metric, a, b, dim) / length;
          const double unit = metric == Metric::cosine ? 1.0 : norm(a, dim) * norm(b, dim), size = metric == Metric::l2 ? -exact : unit;
          const double slack = static_cast<double>(dim + 8) * 0x1p-23 * size + static_cast<double>(dim) * 0x1p-124 * (1 + norm(a, dim) + norm(b, dim));
          const float given = matrix[i * n + j];  // minus infinity where float32 ends
          CHECK(given == static_cast<float>(exact) || std::fabs(static_cast<double>(given) - exact) <= slack);
          expected.scores.push_back(exact);
          expected.tolerances.push_back(metric == Metric::cosine ? rounding : tolerance(metric, a, b, dim, 0.0));
          expected.allowed.push_back(true);
        }
        check_answer(expected, k, found.slots.data() + i * k, found.scores.data() + i * k, found.counts[i]);
      }
    }
  }
  const float bad[] = {1, std::numeric_limits<float>::quiet_NaN()}, good[] = {1, 2};
  float out[4];
  std::int64_t slots[1], counts[1];
  for (const Metric metric : kMetrics) {
    CHECK_THROWS(InputError, "vectors: row 0", score::score_matrix(metric, {good, 1, 2}, {bad, 1, 2}, 1, out));
    CHECK_THROWS(InputError, "vectors: row 0", score::topk(metric, {good, 1, 2}, {bad, 1, 2}, 1, 1, slots, out, counts));
  }
}

}  // namespace
}  // namespace nf::test
