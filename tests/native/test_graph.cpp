// HNSW: recall against loops, exact where it scans, the same bytes for any number of threads, filters, biases, tombstones, difficult rows.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <vector>

#include "graph/index.h"
#include "harness.h"
#include "oracle.h"

namespace nf::test {
namespace {

constexpr Metric kMetrics[] = {Metric::cosine, Metric::ip, Metric::l2};

graph::Params params_of(std::size_t dim, Metric metric, std::uint32_t m = 8) {
  graph::Params params;
  params.dim = static_cast<std::uint32_t>(dim);
  params.metric = metric;
  params.m = m;
  params.ef_construction = 60;
  params.seed = 3;
  return params;
}

struct Found {
  std::vector<std::int64_t> nodes, counts;
  std::vector<float> scores;
  Found(const graph::Sight& index, const graph::Request& request)
      : nodes(request.nq * request.k, -7), counts(request.nq, -7), scores(request.nq * request.k, -7.0f) {
    index.search(request, graph::Answer{nodes.data(), scores.data(), counts.data()});
  }
};

graph::Request request_of(const std::vector<float>& queries, std::size_t dim, std::size_t k) {
  graph::Request request;
  request.queries = queries.data();
  request.nq = queries.size() / dim;
  request.k = k;
  request.ef = 64;
  request.threads = 2;
  return request;
}

std::vector<float> stored(const graph::Sight& index) {
  std::vector<std::uint64_t> nodes(index.size());
  for (std::size_t i = 0; i < nodes.size(); ++i) nodes[i] = i;
  std::vector<float> rows(index.size() * index.params().dim);
  index.get(nodes, rows.data());
  return rows;
}

std::vector<bool> live_of(const graph::Sight& index) {
  std::vector<bool> live(index.size(), false);
  for (const std::uint64_t node : index.live_nodes()) live[node] = true;
  return live;
}

Expected expected_for(const graph::Sight& index, const std::vector<float>& rows, const graph::Request& request, std::size_t query) {
  Expected expected;
  const std::size_t dim = index.params().dim;
  const float* const q = request.queries + query * dim;
  expected.allowed = live_of(index);
  for (std::size_t i = 0; i < index.size(); ++i) {
    const float* const row = rows.data() + i * dim;
    const double bias = request.bias.data == nullptr ? 0.0 : static_cast<double>(request.bias.row(request.bias.rows == 1 ? 0 : query)[i]);
    expected.scores.push_back(score(index.params().metric, q, row, dim) + bias);
    expected.tolerances.push_back(tolerance(index.params().metric, q, row, dim, bias));
    if (request.mask.data != nullptr && request.mask.row(request.mask.rows == 1 ? 0 : query)[i] == 0) expected.allowed[i] = false;
  }
  return expected;
}

void check_exact(const graph::Sight& index, const std::vector<float>& rows, const graph::Request& request) {
  const Found found(index, request);
  for (std::size_t i = 0; i < request.nq; ++i) {
    check_answer(expected_for(index, rows, request, i), request.k, found.nodes.data() + i * request.k, found.scores.data() + i * request.k, found.counts[i]);
  }
}

// As many results as there can be, each allowed, once, with its score, best first; returns the share of the true ones among them.
double checked_recall(const graph::Sight& index, const std::vector<float>& rows, const graph::Request& request) {
  const Found found(index, request);
  double right = 0, all = 0;
  for (std::size_t i = 0; i < request.nq; ++i) {
    const Expected expected = expected_for(index, rows, request, i);
    std::vector<double> best;
    for (std::size_t j = 0; j < expected.scores.size(); ++j) {
      if (expected.allowed[j]) best.push_back(expected.scores[j]);
    }
    const std::size_t want = std::min(request.k, best.size());
    std::sort(best.begin(), best.end(), std::greater<>());
    CHECK(found.counts[i] == static_cast<std::int64_t>(want));
    std::set<std::int64_t> seen;
    for (std::size_t j = 0; j < want; ++j) {
      const std::int64_t node = found.nodes[i * request.k + j];
      const bool valid = node >= 0 && node < static_cast<std::int64_t>(index.size()) && expected.allowed[static_cast<std::size_t>(node)];
      CHECK(valid && seen.insert(node).second);
      if (!valid) continue;
      const double exact = expected.scores[static_cast<std::size_t>(node)], given = static_cast<double>(found.scores[i * request.k + j]);
      CHECK(static_cast<float>(exact) == found.scores[i * request.k + j] || std::fabs(given - exact) <= 0x1p-22 * std::fabs(exact) + 0x1p-149);
      if (j != 0) CHECK(found.scores[i * request.k + j] <= found.scores[i * request.k + j - 1]);
      right += exact >= best[want - 1] ? 1 : 0;
    }
    all += static_cast<double>(want);
  }
  return all == 0 ? 1.0 : right / all;
}

TEST(hnsw_finds_nearly_all_on_every_target) {
  Random random(20);
  const std::size_t dim = 17, n = kSanitized ? 700 : 1500;
  on_each_target([&](const std::string&) {
    for (const Metric metric : kMetrics) {
      const Note note(nf::name_of(metric));
      const std::vector<float> rows = draw(Kind::normal, n, dim, random), queries = draw(Kind::normal, 20, dim, random);
      graph::Hnsw index(params_of(dim, metric));
      index.append(rows.data(), 1, {}, 2);
      index.append(rows.data() + dim, n - 1, {}, 2);
      const std::vector<float> kept = stored(index);
      graph::Request request = request_of(queries, dim, 10);
      request.mode = graph::Mode::walk;
      CHECK(checked_recall(index, kept, request) > 0.9);
      request.mode = graph::Mode::scan;
      check_exact(index, kept, request);
    }
  });
}

TEST(hnsw_with_filters_biases_and_tombstones) {
  Random random(21);
  const std::size_t dim = 12, n = 600;
  const std::vector<float> rows = draw(Kind::normal, n, dim, random), queries = draw(Kind::normal, 4, dim, random);
  for (const Metric metric : kMetrics) {
    graph::Hnsw index(params_of(dim, metric));
    for (std::size_t at = 0; at < n; at += 150) {
      std::vector<std::uint64_t> dead;
      for (std::size_t i = 0; i < at; i += 5) dead.push_back(i);
      index.append(rows.data() + at * dim, 150, dead, 2);
    }
    const std::vector<float> kept = stored(index);
    for (const double share : {0.0, 0.01, 0.3, 0.95}) {
      for (const std::size_t masks : {1, 4}) {
        const Note note(nf::name_of(metric), "share", share, "masks", masks);
        Tight<std::uint8_t> mask(masks * n);
        Tight<float> bias(n);
        for (std::size_t i = 0; i < masks * n; ++i) mask[i] = std::bernoulli_distribution(share)(random) ? 1 : 0;
        for (std::size_t i = 0; i < n; ++i) bias[i] = std::normal_distribution<float>(0.0f, 3.0f)(random);
        graph::Request request = request_of(queries, dim, 15);
        request.limit = n;
        request.mask = MatrixView<std::uint8_t>(mask.data(), masks, n);
        CHECK(checked_recall(index, kept, request) > 0.8);
        request.bias = MatrixView<float>(bias.data(), 1, n);
        check_exact(index, kept, request);
      }
    }
    graph::Request all = request_of(queries, dim, n + 5);
    checked_recall(index, kept, all);
    std::vector<std::uint64_t> everything = graph::Sight(index).live_nodes();
    index.append(rows.data(), 0, everything, 1);
    CHECK(graph::Sight(index).live() == 0 && Found(index, all).counts[0] == 0);
  }
}

TEST(hnsw_on_difficult_rows) {
  Random random(22);
  const std::size_t dim = 7, n = 400;
  for (const Kind kind : kKinds) {
    for (const Metric metric : kMetrics) {
      const Note note(name_of(kind), nf::name_of(metric));
      graph::Hnsw index(params_of(dim, metric, 4));
      const std::vector<float> rows = draw(kind, n, dim, random);
      index.append(rows.data(), n, {}, 2);
      const std::vector<float> kept = stored(index), queries = draw(kind == Kind::huge ? Kind::normal : kind, 3, dim, random);
      graph::Request request = request_of(queries, dim, 12);
      checked_recall(index, kept, request);
      request.mode = graph::Mode::scan;
      check_exact(index, kept, request);
      request.mode = graph::Mode::automatic;
      request.k = n + 3;
      checked_recall(index, kept, request);
    }
  }
}

TEST(hnsw_is_the_same_for_any_number_of_threads) {
  Random random(23);
  const std::size_t dim = 9, n = 900;
  const std::vector<float> rows = draw(Kind::normal, n, dim, random);
  std::vector<std::vector<unsigned char>> bytes;
  for (const int threads : {1, 2, 5}) {
    graph::Hnsw index(params_of(dim, Metric::l2));
    index.append(rows.data(), n / 3, {}, threads);
    index.append(rows.data() + n / 3 * dim, n - n / 3, {2}, threads);
    const TemporaryFile file;
    storage::Writer writer("hnsw");
    index.save(writer, file.path());
    bytes.push_back(file.read());
  }
  CHECK(bytes[0] == bytes[1] && bytes[0] == bytes[2]);
}

TEST(hnsw_refuses_and_stays_as_it_was) {
  const float bad[] = {1, 2, 3, std::numeric_limits<float>::quiet_NaN()}, good[] = {1, 2, 3, 4};
  graph::Hnsw index(params_of(2, Metric::cosine));
  index.append(good, 2, {}, 1);
  CHECK_THROWS(InputError, "vectors: row 1 holds NaN", index.append(bad, 2, {}, 2));
  CHECK_THROWS(InputError, "vectors: row 1 holds NaN", index.check(bad, 2));
  CHECK_THROWS(InputError, "slot 2 given", index.append(good, 2, {2}, 2));
  float out[4];
  CHECK_THROWS(InputError, "slot 9 given", graph::Sight(index).get({9}, out));
  CHECK_THROWS(InputError, "M: 1 given", graph::Hnsw(params_of(2, Metric::ip, 1)));
  CHECK_THROWS(InputError, "dim: 0 given", graph::Hnsw(params_of(0, Metric::ip)));
  const std::vector<float> query(bad, bad + 4);
  CHECK_THROWS(InputError, "queries: row 1", Found(index, request_of(query, 2, 1)));
  CHECK(graph::Sight(index).size() == 2 && graph::Sight(index).live() == 2);
  graph::Hnsw empty(params_of(2, Metric::l2));
  CHECK(Found(empty, request_of(std::vector<float>(2, 1.0f), 2, 3)).counts[0] == 0);
}

}  // namespace
}  // namespace nf::test
