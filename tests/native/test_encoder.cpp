// The encoder as a whole: the same bits in any batch, position and number of threads, on every target; packed blocks that lie; teams.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/aligned.h"
#include "encoder/model.h"
#include "harness.h"
#include "oracle.h"
#include "parallel/pool.h"
#include "parallel/team.h"
#include "parallel/turns.h"

namespace nf::test {
namespace {

using encoder::Kind;
using encoder::Model;
using encoder::Precision;
using encoder::Shape;

Shape small_shape() {
  Shape shape;
  shape.layers = 2;
  shape.width = 48;
  shape.heads = 3;
  shape.ffn = 100;
  shape.vocab = 50;
  shape.positions = 80;
  shape.types = 2;
  shape.eps = 1e-12f;
  return shape;
}

// Random weights by BERT's names.
struct Weights {
  std::vector<std::vector<float>> kept;
  std::vector<encoder::Tensor> tensors;

  explicit Weights(const Shape& shape) {
    kept.reserve(200);
    add("embeddings.word_embeddings.weight", shape.vocab, shape.width);
    add("embeddings.position_embeddings.weight", shape.positions, shape.width);
    add("embeddings.token_type_embeddings.weight", shape.types, shape.width);
    norm("embeddings.LayerNorm", shape.width);
    for (std::uint32_t i = 0; i < shape.layers; ++i) {
      const std::string layer = "encoder.layer." + std::to_string(i) + ".";
      for (const char* part : {"attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"}) linear(layer + part, shape.width, shape.width);
      norm(layer + "attention.output.LayerNorm", shape.width);
      linear(layer + "intermediate.dense", shape.ffn, shape.width);
      linear(layer + "output.dense", shape.width, shape.ffn);
      norm(layer + "output.LayerNorm", shape.width);
    }
  }
  void add(const std::string& name, std::size_t rows, std::size_t cols, float mean = 0.0f) {
    kept.emplace_back(rows * cols);
    for (float& each : kept.back()) each = mean + 0.3f * std::normal_distribution<float>()(random);
    tensors.push_back({name, kept.back().data(), rows, cols});
  }
  void linear(const std::string& name, std::size_t columns, std::size_t depth) {
    add(name + ".weight", columns, depth);
    add(name + ".bias", 1, columns);
  }
  void norm(const std::string& name, std::size_t width) {
    add(name + ".weight", 1, width, 1.0f);
    add(name + ".bias", 1, width);
  }
  Random random{3};
};

struct Batch {
  std::vector<std::int32_t> ids;
  std::vector<std::int64_t> offsets{0};
  void text(const std::int32_t* first, std::size_t count) {
    ids.insert(ids.end(), first, first + count);
    offsets.push_back(static_cast<std::int64_t>(ids.size()));
  }
  std::size_t texts() const { return offsets.size() - 1; }
};

std::vector<float> encoded(const Model& model, const Batch& batch, int threads) {
  std::vector<float> out(batch.texts() * model.shape().width, -7.0f);
  const Status status = model.encode(batch.ids.data(), batch.offsets.data(), batch.texts(), out.data(), threads);
  CHECK(status.ok());
  return out;
}

Batch random_batch(const Shape& shape, std::size_t texts) {
  Random random(5);
  Batch batch;
  for (std::size_t i = 0; i < texts; ++i) {
    std::vector<std::int32_t> ids(1 + random() % (i % 3 == 0 ? 10 : shape.positions));
    for (auto& id : ids) id = static_cast<std::int32_t>(random() % shape.vocab);
    batch.text(ids.data(), ids.size());
  }
  return batch;
}

std::vector<Kind> mixed_plan() { return {Kind::bf16, Kind::int8, Kind::int8, Kind::bf16, Kind::int8, Kind::bf16, Kind::bf16, Kind::int8}; }

TEST(encoder_gives_the_same_bits_everywhere) {
  const Shape shape = small_shape();
  const Weights weights(shape);
  const Batch batch = random_batch(shape, 14);
  on_each_target([&](const std::string& target) {
    for (const Precision precision : {Precision::fp32, Precision::bf16, Precision::int8}) {
      for (const bool mixed : {false, true}) {
        if (mixed && precision != Precision::int8) continue;
        const Note note("target", target, "precision", static_cast<int>(precision), "mixed", mixed);
        const Model model = Model::pack(shape, weights.tensors, precision, mixed ? mixed_plan() : std::vector<Kind>());
        const std::vector<float> all = encoded(model, batch, 1);
        CHECK(encoded(model, batch, 2) == all);
        CHECK(encoded(model, batch, 5) == all);
        std::size_t different = 0, not_unit = 0;
        for (std::size_t i = 0; i < batch.texts(); ++i) {
          Batch alone;
          alone.text(batch.ids.data() + batch.offsets[i], static_cast<std::size_t>(batch.offsets[i + 1] - batch.offsets[i]));
          for (const int threads : {2, 3}) {
            const std::vector<float> one = encoded(model, alone, threads);
            different += !std::equal(one.begin(), one.end(), all.begin() + static_cast<std::ptrdiff_t>(i * shape.width));
          }
          double square = 0.0;
          for (std::size_t j = 0; j < shape.width; ++j) square += static_cast<double>(all[i * shape.width + j]) * static_cast<double>(all[i * shape.width + j]);
          not_unit += !(std::fabs(square - 1.0) < 1e-6);
        }
        CHECK(different == 0);
        CHECK(not_unit == 0);
        // A packed block is the model wherever it lies.
        auto copy = std::make_shared<AlignedBuffer<std::uint8_t>>(model.bytes());
        std::memcpy(copy->data(), model.blob(), model.bytes());
        CHECK(encoded(Model::open(copy->data(), model.bytes(), copy), batch, 2) == all);
      }
    }
  });
}

TEST(encoder_refuses_what_it_cannot_read) {
  const Shape shape = small_shape();
  const Weights weights(shape);
  const Model model = Model::pack(shape, weights.tensors, Precision::int8, {});
  std::vector<float> out(4 * shape.width);
  const std::int32_t good[] = {1, 2, 3}, high[] = {1, 50, 3}, low[] = {1, -1, 3};
  const std::int64_t one[] = {0, 3}, empty[] = {0, 0, 3}, late[] = {1, 3};
  CHECK(model.encode(good, one, 1, out.data(), 1).ok());
  CHECK(model.encode(high, one, 1, out.data(), 1).code == Code::bad_input);
  CHECK(model.encode(low, one, 1, out.data(), 1).code == Code::bad_input);
  CHECK(model.encode(good, empty, 2, out.data(), 1).code == Code::bad_input);
  CHECK(model.encode(good, late, 1, out.data(), 1).code == Code::bad_input);
  const std::vector<std::int32_t> many(81, 1);
  const std::int64_t long_text[] = {0, 81};
  CHECK(model.encode(many.data(), long_text, 1, out.data(), 1).code == Code::bad_input);
  std::vector<encoder::Tensor> tensors = weights.tensors;
  tensors.pop_back();
  CHECK_THROWS(InputError, "no tensor", Model::pack(shape, tensors, Precision::int8, {}));
  tensors = weights.tensors;
  tensors[3].cols -= 1;
  CHECK_THROWS(InputError, "expected from config.json", Model::pack(shape, tensors, Precision::int8, {}));
  CHECK_THROWS(InputError, "plan", Model::pack(shape, weights.tensors, Precision::fp32, std::vector<Kind>(8, Kind::int8)));
  CHECK_THROWS(InputError, "plan", Model::pack(shape, weights.tensors, Precision::int8, std::vector<Kind>(7, Kind::int8)));
}

// Any change of the header is refused, or leaves a model that reads its own bytes alone (AddressSanitizer sees the rest).
TEST(encoder_blocks_that_lie_are_refused) {
  const Shape shape = small_shape();
  const Weights weights(shape);
  const Model model = Model::pack(shape, weights.tensors, Precision::int8, {});
  auto copy = std::make_shared<AlignedBuffer<std::uint8_t>>(model.bytes());
  const Batch batch = random_batch(shape, 3);
  Random random(11);
  std::size_t opened = 0, refused = 0;
  for (int round = 0; round < (kSanitized ? 1000 : 4000); ++round) {
    std::memcpy(copy->data(), model.blob(), model.bytes());
    const std::size_t header = offsetof(encoder::Header, plan) + 8 * sizeof(Kind);
    for (std::size_t i = 0; i <= random() % 3; ++i) copy->data()[random() % header] = static_cast<std::uint8_t>(random());
    const std::size_t bytes = round % 10 == 0 ? random() % model.bytes() : model.bytes();
    try {
      const Model found = Model::open(copy->data(), bytes, copy);
      std::vector<float> out(batch.texts() * found.shape().width);
      (void)found.encode(batch.ids.data(), batch.offsets.data(), batch.texts(), out.data(), 1);
      ++opened;
    } catch (const FormatError&) {
      ++refused;
    }
  }
  CHECK(refused > 500);
  CHECK(opened > 0);
}

TEST(teams_run_every_rank_once_and_in_step) {
  for (int members = 2; members <= 4; ++members) {
    for (int round = 0; round < 40; ++round) {
      std::vector<int> seen(static_cast<std::size_t>(members), 0);
      std::atomic<int> total{0}, wrong{0};
      parallel::Barrier barrier(members);
      const bool ran = parallel::run_team(members, [&](int rank) {
        for (int step = 1; step <= 5; ++step) {
          ++seen[static_cast<std::size_t>(rank)];
          total.fetch_add(1, std::memory_order_relaxed);
          barrier.wait();
          if (total.load(std::memory_order_relaxed) < step * members) wrong.fetch_add(1);
          barrier.wait();
        }
      });
      CHECK(ran);
      CHECK(wrong.load() == 0);
      CHECK(std::count(seen.begin(), seen.end(), 5) == members);
    }
  }
  CHECK(!parallel::run_team(1, [](int) {}));
  CHECK(!parallel::run_team(parallel::kMaxTeam + 1, [](int) {}));
}

TEST(encoder_serves_many_threads) {
  const Shape shape = small_shape();
  const Weights weights(shape);
  const Model model = Model::pack(shape, weights.tensors, Precision::int8, {});
  const Batch batch = random_batch(shape, 12);
  const std::vector<float> all = encoded(model, batch, 1);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < (kSanitized ? 20 : 200); ++round) {
        Batch alone;
        const std::size_t i = static_cast<std::size_t>(t * 7 + round) % batch.texts();
        alone.text(batch.ids.data() + batch.offsets[i], static_cast<std::size_t>(batch.offsets[i + 1] - batch.offsets[i]));
        const std::vector<float> one = encoded(model, alone, 2);
        if (!std::equal(one.begin(), one.end(), all.begin() + static_cast<std::ptrdiff_t>(i * shape.width))) wrong.fetch_add(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong.load() == 0);
}

TEST(short_calls_wait_for_their_turn_and_long_ones_do_not) {
  const Shape shape = small_shape();
  const Weights weights(shape);
  const Model model = Model::pack(shape, weights.tensors, Precision::int8, {});
  const std::vector<std::int32_t> tokens(70, 7);
  Batch brief, lengthy;
  brief.text(tokens.data(), 5);
  for (int i = 0; i < 10; ++i) lengthy.text(tokens.data(), tokens.size());  // 700 tokens: more than a chunk
  std::vector<std::unique_ptr<parallel::Turn>> taken;
  for (int i = 0; i < parallel::usable_cores(); ++i) taken.push_back(std::make_unique<parallel::Turn>());
  CHECK(!encoded(model, lengthy, 1).empty());  // or this test never ends
  std::atomic<bool> done{false};
  std::thread caller([&] {
    CHECK(!encoded(model, brief, 1).empty());
    done = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(200));  // such a call takes microseconds
  CHECK(!done);
  taken.pop_back();
  caller.join();
  CHECK(done);
}

}  // namespace
}  // namespace nf::test
