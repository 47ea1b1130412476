// The frozen graph: every metric, layout and kind of rows, odd dimensions, masks whose memory ends with them, files with bytes changed.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>
#include <vector>

#include "graph/frozen.h"
#include "graph/index.h"
#include "harness.h"
#include "oracle.h"

namespace nf::test {
namespace {

constexpr Metric kMetrics[] = {Metric::cosine, Metric::ip, Metric::l2};
constexpr graph::Layout kLayouts[] = {graph::Layout::inlined, graph::Layout::compact};

graph::Params params_of(std::size_t dim, Metric metric, std::uint32_t m) {
  graph::Params params;
  params.dim = static_cast<std::uint32_t>(dim);
  params.metric = metric;
  params.m = m;
  params.ef_construction = 40;
  params.seed = 3;
  return params;
}

struct Found {
  std::vector<std::int64_t> nodes, counts;
  std::vector<float> scores;
  Found(const graph::Frozen& index, const graph::Request& request)
      : nodes(request.nq * request.k, -7), counts(request.nq, -7), scores(request.nq * request.k, -7.0f) {
    index.search(request, graph::Answer{nodes.data(), scores.data(), counts.data()});
  }
};

graph::Request request_of(const std::vector<float>& queries, std::size_t dim, std::size_t k) {
  graph::Request request;
  request.queries = queries.data();
  request.nq = queries.size() / dim;
  request.k = k;
  request.ef = 40;
  request.threads = 2;
  return request;
}

// As many results as there can be, each allowed and once, best first; scores not checked.
void check_form(const graph::Request& request, const Found& found, std::size_t matches, std::size_t size) {
  for (std::size_t i = 0; i < request.nq; ++i) {
    const std::size_t want = std::min(request.k, matches);
    CHECK(found.counts[i] == static_cast<std::int64_t>(want));
    std::set<std::int64_t> seen;
    for (std::size_t j = 0; j < want; ++j) {
      const std::int64_t node = found.nodes[i * request.k + j];
      CHECK(node >= 0 && node < static_cast<std::int64_t>(size) && seen.insert(node).second);
      if (request.mask.data != nullptr) CHECK(request.mask.row(0)[node] != 0);
      if (j != 0) CHECK(found.scores[i * request.k + j] <= found.scores[i * request.k + j - 1]);
    }
  }
}

TEST(frozen_finds_nearly_all_on_every_target) {
  Random random(30);
  on_each_target([&](const std::string&) {
    for (const Metric metric : kMetrics) {
      for (const std::size_t dim : {1, 19, 64}) {
        const Note note(nf::name_of(metric), "dim", dim);
        const std::size_t n = 400;
        const std::vector<float> rows = draw(Kind::normal, n, dim, random), queries = draw(Kind::normal, 9, dim, random);
        graph::Hnsw index(params_of(dim, metric, 18));
        index.append(rows.data(), n, {}, 2);
        for (const graph::Layout layout : kLayouts) {
          const auto frozen = index.freeze(layout, 2);
          graph::Request request = request_of(queries, dim, 10);
          request.ef = 120;
          request.mode = graph::Mode::walk;
          const Found found(*frozen, request);
          check_form(request, found, n, n);
          std::vector<std::uint64_t> all(n);
          for (std::size_t i = 0; i < n; ++i) all[i] = i;
          std::vector<float> kept(n * dim);
          graph::Sight(index).get(all, kept.data());
          double right = 0;
          for (std::size_t i = 0; i < request.nq; ++i) {
            std::vector<double> scores;
            for (std::size_t j = 0; j < n; ++j) scores.push_back(score(metric, queries.data() + i * dim, kept.data() + j * dim, dim));
            std::vector<double> best = scores;
            std::sort(best.begin(), best.end(), std::greater<>());
            // Ten places in a row of 400 whose scores differ by less than the codes can tell count as right.
            const double slack = layout == graph::Layout::compact ? 0.05 * std::fabs(best[0]) + 0.05 : 0.0;
            for (std::size_t j = 0; j < 10; ++j) right += scores[static_cast<std::size_t>(found.nodes[i * 10 + j])] >= best[9] - slack ? 1 : 0;
          }
          CHECK(right >= 0.9 * 10 * static_cast<double>(request.nq));
        }
      }
    }
  });
}

TEST(frozen_with_filters_biases_and_tombstones) {
  Random random(31);
  const std::size_t dim = 12, n = 700;
  const std::vector<float> rows = draw(Kind::normal, n, dim, random), queries = draw(Kind::normal, 5, dim, random);
  for (const graph::Layout layout : kLayouts) {
    graph::Hnsw index(params_of(dim, Metric::l2, 8));
    index.append(rows.data(), n, {}, 2);
    index.append(rows.data(), 0, {1, 2, 3, 699}, 2);
    const auto frozen = index.freeze(layout, 1);
    CHECK(frozen->graph().live == n - 4 && frozen->live_nodes() == graph::Sight(index).live_nodes());
    for (const double share : {0.0, 0.02, 0.5, 0.95}) {
      Tight<std::uint8_t> mask(n);
      Tight<float> bias(n);
      std::size_t matches = 0;
      for (std::size_t i = 0; i < n; ++i) {
        mask[i] = std::bernoulli_distribution(share)(random) ? 1 : 0;
        bias[i] = std::normal_distribution<float>(0.0f, 3.0f)(random);
        matches += mask[i] != 0 && i != 1 && i != 2 && i != 3 && i != 699 ? 1 : 0;
      }
      graph::Request request = request_of(queries, dim, 15);
      request.ef = 16;
      request.limit = n;
      request.mask = MatrixView<std::uint8_t>(mask.data(), 1, n);
      check_form(request, Found(*frozen, request), matches, n);
      request.bias = MatrixView<float>(bias.data(), 1, n);
      check_form(request, Found(*frozen, request), matches, n);
    }
    graph::Request all = request_of(queries, dim, n + 5);
    check_form(all, Found(*frozen, all), n - 4, n);
  }
}

TEST(frozen_on_difficult_rows) {
  Random random(32);
  const std::size_t dim = 7, n = 300;
  for (const Kind kind : kKinds) {
    for (const Metric metric : kMetrics) {
      const Note note(name_of(kind), nf::name_of(metric));
      graph::Hnsw index(params_of(dim, metric, 4));
      const std::vector<float> rows = draw(kind, n, dim, random), queries = draw(kind == Kind::huge ? Kind::normal : kind, 3, dim, random);
      index.append(rows.data(), n, {}, 2);
      for (const graph::Layout layout : kLayouts) {
        const auto frozen = index.freeze(layout, 2);
        for (const std::size_t k : {std::size_t{12}, n + 3}) {
          const graph::Request request = request_of(queries, dim, k);
          const Found found(*frozen, request);
          for (std::size_t i = 0; i < request.nq; ++i) CHECK(found.counts[i] == static_cast<std::int64_t>(std::min(k, n)));
        }
      }
    }
  }
}

TEST(frozen_files_with_bytes_changed) {
  Random random(33);
  const std::size_t dim = 5, n = 40;
  const std::vector<float> rows = draw(Kind::normal, n, dim, random), queries = draw(Kind::normal, 2, dim, random);
  graph::Hnsw index(params_of(dim, Metric::l2, 3));
  index.append(rows.data(), n, {}, 1);
  for (const graph::Layout layout : kLayouts) {
    const TemporaryFile file;
    storage::Writer writer("frozen");
    index.freeze(layout, 1)->save(writer, file.path());
    const std::vector<unsigned char> good = file.read();
    std::size_t opened = 0;
    for (std::size_t at = 64; at < good.size(); at += kSanitized ? 7 : 3) {
      std::vector<unsigned char> bad = good;
      bad[at] = static_cast<unsigned char>(at % 3 == 0 ? 0xFF : at % 3 == 1 ? 0x80 : 0x7F);
      file.write(bad.data(), bad.size());
      try {
        const graph::Frozen frozen(storage::MappedFile::open(file.path(), "frozen", at % 2 == 0, false));
        const Found found(frozen, request_of(queries, dim, 6));
        CHECK(found.counts[0] <= 6);
        ++opened;
      } catch (const FormatError&) {
      }
    }
    CHECK(opened > 100);
  }
}

}  // namespace
}  // namespace nf::test
