// Several threads in one index at once, through the locks and snapshots that the bindings rely on: searches beside appends, deletes, copies and saves. The answers
// must be right for what was in the index at some moment of the call; ThreadSanitizer watches how they came about.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "graph/frozen.h"
#include "graph/index.h"
#include "harness.h"
#include "oracle.h"
#include "score/borrowed.h"
#include "score/flat_store.h"

namespace nf::test {
namespace {

constexpr std::size_t kDim = 8, kStart = 200, kK = 12;
constexpr int kSteps = kSanitized ? 60 : 400, kReaders = 3, kRounds = 20;

// Runs the steps of each writer while readers repeat theirs until the writers are done, kRounds times at least.
void run_together(const std::vector<std::function<void(int)>>& writers, const std::function<void(Random&)>& read) {
  std::atomic<int> left{static_cast<int>(writers.size())};
  std::vector<std::thread> threads;
  for (const auto& write : writers) {
    threads.emplace_back([&left, write = &write] {
      for (int step = 0; step < kSteps; ++step) (*write)(step);
      --left;
    });
  }
  for (int r = 0; r < kReaders; ++r) {
    threads.emplace_back([&, r] {
      Random random(static_cast<std::uint64_t>(100 + r));
      for (int round = 0; round < kRounds || left != 0; ++round) read(random);
    });
  }
  for (std::thread& each : threads) each.join();
}

// Slots in order of falling score, with the scores of the rows that the index says it holds (a row never changes, so it can be asked for later).
template <typename Get>
void check_reader_answer(const Get& get, Metric metric, const std::vector<float>& query, std::size_t limit, const std::vector<std::int64_t>& slots,
                         const std::vector<float>& scores, std::int64_t count) {
  CHECK(count >= 0 && count <= static_cast<std::int64_t>(kK));
  std::vector<std::uint64_t> named;
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    CHECK(slots[i] >= 0 && slots[i] < static_cast<std::int64_t>(limit));
    if (i != 0) CHECK(scores[i] <= scores[i - 1]);
    named.push_back(static_cast<std::uint64_t>(slots[i]));
  }
  std::vector<float> rows(named.size() * kDim);
  get(named, rows.data());
  for (std::size_t i = 0; i < named.size(); ++i) {
    const double exact = score(metric, query.data(), rows.data() + i * kDim, kDim);
    CHECK(std::fabs(static_cast<double>(scores[i]) - exact) <= 0x1p-20 * (1.0 + std::fabs(exact)));
  }
  std::sort(named.begin(), named.end());
  CHECK(std::adjacent_find(named.begin(), named.end()) == named.end());
}

void search_beside_writers(Metric metric, Storage storage) {
  Random random(40);
  score::FlatStore store(kDim, metric, storage);
  const std::vector<float> rows = draw(Kind::normal, kStart, kDim, random);
  store.append(MatrixView<float>(rows.data(), kStart, kDim), {}, 2);
  // Each writer replaces rows of its own: an append and a death in one step, so there are never fewer live rows.
  const auto replace = [&store](std::uint64_t first) -> std::function<void(int)> {
    return [&store, at = first, own = Random(first)](int step) mutable {
      const std::vector<float> fresh = draw(Kind::normal, step % 3 == 0 ? 200 : 1, kDim, own);
      store.append(MatrixView<float>(fresh.data(), fresh.size() / kDim, kDim), {at}, 2);
      at += 2;
    };
  };
  const auto keep = [&](int step) {
    if (step % 20 != 0) return;
    const TemporaryFile file;
    storage::Writer writer("flat");
    store.save(writer, file.path());
    const auto copy = store.compacted();
    CHECK(copy->live() == copy->slots() && store.live_slots().size() >= kStart);
  };
  run_together({replace(0), replace(1), keep}, [&](Random& own) {
    const std::vector<float> query = draw(Kind::normal, 1, kDim, own);
    std::vector<std::int64_t> slots(kK), counts(1);
    std::vector<float> scores(kK);
    const std::size_t limit = store.slots();
    const std::vector<std::uint8_t> mask(limit, 1);
    score::Options options;
    options.k = kK;
    options.threads = 2;
    if (own() % 2 == 0) options.mask = MatrixView<std::uint8_t>(mask.data(), 1, limit);
    store.search(MatrixView<float>(query.data(), 1, kDim), options, limit, score::Answer{slots.data(), scores.data(), counts.data()});
    check_reader_answer([&](const auto& named, float* out) { store.get(named, out); }, metric, query, limit, slots, scores, counts[0]);
  });
  CHECK(store.live() == store.slots() - 2 * kSteps);
}

TEST(flat_searches_beside_appends_deletes_and_saves) {
  search_beside_writers(Metric::l2, Storage::float32);
  search_beside_writers(Metric::ip, Storage::int8);
}

// The writer deletes nodes in the order of their numbers, so a moment's size and live rows say which rows may be found: all from
// size - live on. A scan must give the best of these, a walk some of them.
void check_moment(const graph::Sight& seen, Metric metric, graph::Mode mode, Random& own) {
  const std::size_t first = seen.size() - seen.live();
  const std::vector<float> query = draw(Kind::normal, 1, kDim, own);
  std::vector<std::int64_t> nodes(kK), counts(1);
  std::vector<float> scores(kK);
  graph::Request request;
  request.queries = query.data();
  request.nq = 1;
  request.k = kK;
  request.threads = 2;
  request.mode = mode;
  seen.search(request, graph::Answer{nodes.data(), scores.data(), counts.data()});
  check_reader_answer([&](const auto& named, float* out) { seen.get(named, out); }, metric, query, seen.size(), nodes, scores, counts[0]);
  for (std::size_t i = 0; i < static_cast<std::size_t>(counts[0]); ++i) CHECK(nodes[i] >= static_cast<std::int64_t>(first));
  if (mode == graph::Mode::walk) return;
  CHECK(counts[0] == static_cast<std::int64_t>(std::min(kK, seen.live())));
  if (mode != graph::Mode::scan) return;
  std::vector<std::uint64_t> allowed = seen.live_nodes();
  CHECK(allowed.size() == seen.live() && (allowed.empty() || (allowed.front() == first && allowed.back() == seen.size() - 1)));
  std::vector<float> rows(allowed.size() * kDim), best;
  seen.get(allowed, rows.data());
  for (std::size_t i = 0; i < allowed.size(); ++i) best.push_back(static_cast<float>(score(metric, query.data(), rows.data() + i * kDim, kDim)));
  std::sort(best.begin(), best.end(), std::greater<>());
  for (std::size_t i = 0; i < static_cast<std::size_t>(counts[0]); ++i) CHECK(std::fabs(scores[i] - best[i]) <= 1e-5f * (1.0f + std::fabs(best[i])));
}

TEST(hnsw_searches_beside_appends_and_deletes) {
  Random random(41);
  graph::Params params;
  params.dim = kDim;
  params.metric = Metric::ip;
  params.m = 4;
  params.ef_construction = 30;
  graph::Hnsw index(params);
  const std::vector<float> rows = draw(Kind::normal, kStart, kDim, random);
  index.append(rows.data(), kStart, {}, 2);
  const graph::Sight begun(index);
  std::uint64_t oldest = 0;
  // One row or many come in, one or many go, in one step; now and then more go than come, and whole neighbourhoods are mended.
  const auto write = [&](int step) {
    const std::vector<float> fresh = draw(Kind::normal, step % 3 == 0 ? 20 : 1, kDim, random);
    std::vector<std::uint64_t> dead;
    for (int i = 0; i < (step % 5 == 0 ? 30 : 2); ++i) dead.push_back(oldest++);
    index.append(fresh.data(), fresh.size() / kDim, dead, 2);
  };
  const auto keep = [&](int step) {
    if (step % 20 != 0) return;
    const TemporaryFile file;
    storage::Writer writer("hnsw");
    index.save(writer, file.path());
    const auto loaded = graph::Hnsw::load(*storage::MappedFile::open(file.path(), "hnsw", true, true));
    CHECK(graph::Sight(*loaded).size() >= kStart);
    CHECK(graph::Sight(*index.consolidated(2)).live() <= graph::Sight(index).size());
    index.freeze(graph::Layout::compact, 1);
  };
  run_together({write, keep}, [&](Random& own) {
    const graph::Sight seen(index);
    CHECK(seen.size() >= kStart && seen.live() <= seen.size());
    for (const graph::Mode mode : {graph::Mode::walk, graph::Mode::automatic, graph::Mode::scan}) check_moment(seen, params.metric, mode, own);
    check_moment(begun, params.metric, own() % 2 == 0 ? graph::Mode::walk : graph::Mode::scan, own);
  });
  CHECK(begun.size() == kStart && begun.live() == kStart);
  const graph::Sight end(index);
  CHECK(end.size() - end.live() == oldest);
  index.connect();
  CHECK(index.unreached() == 0);
}

TEST(free_functions_from_many_threads) {
  Random random(42);
  const std::vector<float> rows = draw(Kind::normal, 300, kDim, random);
  const MatrixView<float> view(rows.data(), 300, kDim);
  run_together({[](int) {}}, [&](Random& own) {
    const std::vector<float> query = draw(Kind::normal, 2, kDim, own);
    std::vector<float> matrix(600), scores(2 * kK);
    std::vector<std::int64_t> slots(2 * kK), counts(2);
    score::score_matrix(Metric::cosine, MatrixView<float>(query.data(), 2, kDim), view, 2, matrix.data());
    score::topk(Metric::cosine, MatrixView<float>(query.data(), 2, kDim), view, kK, 2, slots.data(), scores.data(), counts.data());
    CHECK(counts[0] == static_cast<std::int64_t>(kK) && std::fabs(scores[0] - *std::max_element(matrix.begin(), matrix.begin() + 300)) < 1e-5f);
  });
}

}  // namespace
}  // namespace nf::test
